use std::collections::HashMap;

use model::Digest;

use crate::stat::FileStat;
use crate::{Content, Entry, Kind, Sha256Digest, Tree};

/// Content that lies in the layer store already, by the trees that name it.
#[derive(Debug, Default)]
pub struct Known {
    trees: Vec<Tree>,
    by_path: HashMap<String, (usize, usize)>,
    by_sha256: HashMap<Sha256Digest, (usize, usize)>,
}

impl Known {
    /// `trees`, of which an earlier one counts before a later one; only contents whose pack `is_stored` are known.
    pub fn new(trees: Vec<Tree>, is_stored: impl Fn(&Digest) -> bool) -> Self {
        let (mut by_path, mut by_sha256) = (HashMap::new(), HashMap::new());
        for (number, tree) in trees.iter().enumerate() {
            let stored: Vec<bool> = tree.packs.iter().map(|pack| is_stored(&pack.digest)).collect();
            for (at, entry) in tree.entries.iter().enumerate() {
                let Kind::File { content, hard_link } = &entry.kind else { continue };
                if content.pack.is_some_and(|pack| stored[pack]) {
                    // What was another name of a file is not the file that is there now.
                    if hard_link.is_none() {
                        by_path.entry(entry.path.clone()).or_insert((number, at));
                    }
                    by_sha256.entry(content.sha256).or_insert((number, at));
                }
            }
        }
        Self { trees, by_path, by_sha256 }
    }

    /// The content of a file and the pack that it lies in. A client that says the digest means that content; without
    /// one, what fsutil compares decides: the file is the same if path, metadata, size and modification time are.
    pub(crate) fn find(&self, entry: &Entry, stat: &FileStat) -> Option<(&Content, &crate::Pack)> {
        if let Some(sha256) = &stat.sha256 {
            let found = self.content(*self.by_sha256.get(sha256)?)?;
            return (found.0.size == stat.size).then_some(found);
        }
        let place = *self.by_path.get(&entry.path)?;
        let before = &self.trees[place.0].entries[place.1];
        let of = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.mtime_ns);
        let found = self.content(place)?;
        (of(before) == of(entry) && found.0.size == stat.size).then_some(found)
    }

    fn content(&self, (tree, entry): (usize, usize)) -> Option<(&Content, &crate::Pack)> {
        let tree = &self.trees[tree];
        match &tree.entries[entry].kind {
            Kind::File { content, .. } => Some((content, &tree.packs[content.pack?])),
            _ => None,
        }
    }
}
