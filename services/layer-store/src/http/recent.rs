use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use model::Digest;

use super::route::Reference;
use crate::repositories::Name;

/// Manifests are small and asked for again and again; so many bytes of them are held.
const MOST_BYTES: usize = 16 << 20;

/// A manifest as it is served.
pub struct Found {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Bytes,
}

/// Manifests that were asked for lately, by repository and reference. Whoever changes a repository tells it here
/// after the change; a reading that began before that is not taken in.
#[derive(Default)]
pub struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    changes: u64,
    bytes: usize,
    found: HashMap<String, Arc<Found>>,
}

impl Recent {
    pub fn get(&self, name: &Name, reference: &Reference) -> Option<Arc<Found>> {
        self.kept().found.get(&key(name, reference)).cloned()
    }

    /// To be asked before the files are read, and handed to [`Recent::put`].
    pub fn changes(&self) -> u64 {
        self.kept().changes
    }

    pub fn put(&self, name: &Name, reference: &Reference, found: &Arc<Found>, changes: u64) {
        let mut kept = self.kept();
        let size = found.bytes.len() + 512;
        if kept.changes != changes || size > MOST_BYTES / 4 {
            return;
        }
        if kept.bytes + size > MOST_BYTES {
            kept.found.clear();
            kept.bytes = 0;
        }
        if kept.found.insert(key(name, reference), found.clone()).is_none() {
            kept.bytes += size;
        }
    }

    /// The repository is not as it was.
    pub fn changed(&self, name: &Name) {
        let mut kept = self.kept();
        kept.changes += 1;
        let of_it = format!("{name} ");
        kept.found.retain(|key, _| !key.starts_with(&of_it));
        kept.bytes = kept.found.values().map(|found| found.bytes.len() + 512).sum();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No name and no reference holds a space.
fn key(name: &Name, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{name} {}", tag.as_str()),
        Reference::Digest(digest) => format!("{name} {digest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repositories::Tag;

    #[test]
    fn what_was_read_before_a_change_is_not_taken_in() {
        let recent = Recent::default();
        let (app, other) = (Name::parse("app").expect("valid"), Name::parse("app2").expect("valid"));
        let tag = Reference::Tag(Tag::parse("v1").expect("valid"));
        let found = Arc::new(Found { digest: Digest::of(b""), media_type: String::new(), bytes: Bytes::from("{}") });
        let before = recent.changes();
        recent.changed(&app);
        recent.put(&app, &tag, &found, before);
        assert!(recent.get(&app, &tag).is_none(), "it may be old");
        for name in [&app, &other] {
            recent.put(name, &tag, &found, recent.changes());
        }
        assert!(recent.get(&app, &tag).is_some());
        recent.changed(&app);
        assert!(recent.get(&app, &tag).is_none() && recent.get(&other, &tag).is_some(), "others stay");
    }

    #[test]
    fn memory_is_bounded() {
        let recent = Recent::default();
        let name = Name::parse("app").expect("valid");
        for number in 0..100 {
            let bytes = Bytes::from(vec![0; 1 << 20]);
            let found = Arc::new(Found { digest: Digest::of(b""), media_type: String::new(), bytes });
            let tag = Reference::Tag(Tag::parse(&format!("v{number}")).expect("valid"));
            recent.put(&name, &tag, &found, recent.changes());
            assert!(recent.kept().found.values().map(|found| found.bytes.len()).sum::<usize>() <= MOST_BYTES);
            assert!(recent.get(&name, &tag).is_some());
        }
    }
}
