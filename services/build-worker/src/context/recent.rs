//! Folders that stay for the next build, in the order of their last use. Nothing in them is needed: all lies in the layer
//! store, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// A folder of files that do not change.
pub trait Kept {
    fn folder(&self) -> &Path;
    /// Sum of its files' sizes.
    fn bytes(&self) -> u64;
}

/// Who holds one of them beside the list has it in use.
#[derive(Debug)]
pub struct Recent<T> {
    /// The one used last at the end.
    kept: Vec<(SystemTime, Arc<T>)>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { kept: Vec::new() }
    }
}

impl<T: Kept> Recent<T> {
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.kept.iter().map(|(_, kept)| &**kept)
    }

    pub fn push(&mut self, kept: Arc<T>) {
        self.kept.push((SystemTime::now(), kept));
    }

    pub fn find(&mut self, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let at = self.kept.iter().position(|(_, kept)| is_it(kept))?;
        let (_, found) = self.kept.remove(at);
        self.push(found.clone());
        Some(found)
    }

    pub fn sum(&self) -> proto::KeptFiles {
        let mut sum = proto::KeptFiles { count: self.kept.len() as u64, ..Default::default() };
        for (_, kept) in &self.kept {
            sum.bytes += kept.bytes();
            sum.held_bytes += if is_unused(kept) { 0 } else { kept.bytes() };
        }
        sum
    }

    /// Those in nobody's use: folder, bytes and when they were used last.
    pub fn unused(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let unused = self.kept.iter().filter(|(_, kept)| is_unused(kept));
        unused.map(|(used, kept)| (kept.folder().to_owned(), kept.bytes(), *used)).collect()
    }

    /// Takes out the one in nobody's use that has the greatest score.
    pub fn take_best<S: Ord>(&mut self, score: impl Fn(&T) -> Option<S>) -> Option<T> {
        let unused = self.kept.iter().enumerate().filter(|(_, (_, kept))| is_unused(kept));
        let (_, at) = unused.filter_map(|(at, (_, kept))| Some((score(kept)?, at))).max()?;
        Arc::into_inner(self.kept.remove(at).1)
    }

    /// Takes out the one with this folder, unless somebody uses it.
    pub fn take_unused(&mut self, folder: &Path) -> bool {
        self.take_best(|kept| (kept.folder() == folder).then_some(())).is_some()
    }

    /// Takes out those used longest ago until the rest is within the limits; gives their folders.
    pub fn give_up(&mut self, max_count: usize, max_bytes: u64) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        while self.kept.len() > max_count || self.iter().map(Kept::bytes).sum::<u64>() > max_bytes {
            let Some(at) = self.kept.iter().position(|(_, kept)| is_unused(kept)) else { break };
            folders.push(self.kept.remove(at).1.folder().to_owned());
        }
        folders
    }
}

fn is_unused<T>(kept: &Arc<T>) -> bool {
    Arc::strong_count(kept) == 1
}

/// Removes folders that were taken out. Blocks.
pub fn remove(folders: &[PathBuf]) {
    for folder in folders {
        if let Err(error) = std::fs::remove_dir_all(folder) {
            tracing::warn!(%error, folder = %folder.display(), "a context's folder stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Folder(PathBuf, u64);

    impl Kept for Folder {
        fn folder(&self) -> &Path {
            &self.0
        }

        fn bytes(&self) -> u64 {
            self.1
        }
    }

    fn three() -> Recent<Folder> {
        let mut recent = Recent::default();
        for (name, bytes) in [("a", 1), ("b", 2), ("c", 4)] {
            recent.push(Arc::new(Folder(name.into(), bytes)));
        }
        recent
    }

    fn names(recent: &Recent<Folder>) -> String {
        recent.iter().map(|kept| kept.folder().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_was_used_longest_ago_and_is_in_nobodys_use_goes() {
        for (count, bytes, left) in [(3, 7, "bca"), (2, 7, "ca"), (3, 5, "ca"), (3, 4, "a"), (0, 0, "")] {
            let mut recent = three();
            recent.find(|kept| kept.0 == Path::new("a")).expect("it is there");
            recent.give_up(count, bytes);
            assert_eq!(names(&recent), left, "{count} {bytes}");
        }
        let mut recent = three();
        let used = recent.find(|kept| kept.0 == Path::new("a")).expect("it is there");
        assert_eq!(recent.sum(), proto::KeptFiles { count: 3, bytes: 7, held_bytes: 1 });
        assert_eq!(recent.unused().into_iter().map(|(_, bytes, _)| bytes).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(recent.give_up(0, 0), [PathBuf::from("b"), "c".into()]);
        assert!(!recent.take_unused(Path::new("a")), "it is in use");
        drop(used);
        assert!(recent.take_unused(Path::new("a")) && !recent.take_unused(Path::new("a")));
    }
}
