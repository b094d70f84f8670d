//! Trees of clients' folders that were read lately. Each is in the layer store; here it is ready to be looked up in.

use std::sync::{Arc, Mutex};

use contexts::{Indexed, Tree};

use crate::app::lock;

/// Files of all kept trees: about 50 MB.
const MAX_ENTRIES: usize = 150_000;

/// By the digests of their blobs, the one used last at the end.
#[derive(Default)]
pub struct KnownTrees(Mutex<Vec<(String, Arc<Indexed>)>>);

impl KnownTrees {
    pub fn find(&self, digest: &str) -> Option<Arc<Indexed>> {
        let mut trees = lock(&self.0);
        let at = trees.iter().position(|(known, _)| known == digest)?;
        let found = trees.remove(at);
        let tree = found.1.clone();
        trees.push(found);
        Some(tree)
    }

    /// Keeps a tree that fits, and gives up those used longest ago for it.
    pub fn add(&self, digest: &str, tree: Tree) -> Arc<Indexed> {
        if let Some(known) = self.find(digest) {
            return known;
        }
        let tree = Arc::new(Indexed::new(tree));
        if tree.tree.entries.len() > MAX_ENTRIES {
            return tree;
        }
        let mut trees = lock(&self.0);
        trees.push((digest.to_owned(), tree.clone()));
        let mut entries: usize = trees.iter().map(|(_, tree)| tree.tree.entries.len()).sum();
        while entries > MAX_ENTRIES {
            entries -= trees.remove(0).1.tree.entries.len();
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use contexts::{Entry, Kind};

    use super::*;

    #[test]
    fn those_used_longest_ago_go() {
        let tree = |files: usize| {
            let entry = |number: usize| Entry {
                path: format!("{number:06}"),
                mode: 0,
                uid: 0,
                gid: 0,
                mtime_ns: 0,
                xattrs: Vec::new(),
                kind: Kind::Folder,
            };
            Tree { entries: (0..files).map(entry).collect(), ..Tree::default() }
        };
        let known = KnownTrees::default();
        for digest in ["a", "b"] {
            known.add(digest, tree(MAX_ENTRIES / 2));
        }
        assert!(known.find("a").is_some());
        known.add("c", tree(1));
        let there = |digest: &str| known.find(digest).is_some();
        assert_eq!((there("a"), there("b"), there("c")), (true, false, true));
        known.add("huge", tree(MAX_ENTRIES + 1));
        assert_eq!((there("huge"), there("a")), (false, true), "what does not fit takes no place");
    }
}
