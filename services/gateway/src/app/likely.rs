//! Steps that the next build of the same kind may have.

use std::sync::Mutex;

use super::build_history::sameness;
use super::lock;

/// Builds whose steps' keys are kept in memory, and keys of one.
const BUILDS: usize = 128;
const KEYS: usize = 256;

/// Keys of the steps that the last build of the same [`sameness`] had: the next one asks for all of them at once. The one
/// noted last is at the end.
#[derive(Default)]
pub struct Likely(Mutex<Vec<(String, Vec<String>)>>);

impl Likely {
    pub fn note(&self, same: &str, vertices: &[proto::BuildVertex]) {
        let keys = vertices.iter().map(|vertex| &vertex.key).filter(|key| !key.is_empty());
        let keys: Vec<String> = keys.take(KEYS).cloned().collect();
        let mut builds = lock(&self.0);
        builds.retain(|(known, _)| known != same);
        if !keys.is_empty() {
            builds.push((same.to_owned(), keys));
        }
        if builds.len() > BUILDS {
            builds.remove(0);
        }
    }

    /// None where no such build is known here.
    pub fn keys(&self, options: &proto::BuildOptions) -> Vec<String> {
        let same = sameness(options);
        lock(&self.0).iter().find(|(known, _)| *known == same).map(|(_, keys)| keys.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_builds_keys_are_likely() {
        let of = |tag: &str| proto::BuildOptions { tags: vec![tag.to_owned()], ..Default::default() };
        let vertex = |key: &str| proto::BuildVertex { key: key.to_owned(), ..Default::default() };
        let likely = Likely::default();
        likely.note(&sameness(&of("app:1")), &[vertex("a"), vertex(""), vertex("b")]);
        assert_eq!((likely.keys(&of("app:2")), likely.keys(&of("web:1"))), (vec!["a".into(), "b".into()], vec![]));
        likely.note(&sameness(&of("app:1")), &[vertex("c")]);
        assert_eq!(likely.keys(&of("app:1")), ["c"]);
        for build in 0..BUILDS {
            likely.note(&build.to_string(), &[vertex("x")]);
        }
        assert_eq!(likely.keys(&of("app:1")), [] as [String; 0], "those noted longest ago go");
    }
}
