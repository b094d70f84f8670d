use std::collections::HashMap;
use std::sync::Arc;

use model::Digest;

use crate::stat::FileStat;
use crate::{Content, Entry, Kind, Pack, Sha256Digest, Tree};

/// A tree in which contents are looked up; made once for many uses.
#[derive(Debug)]
pub struct Indexed {
    pub tree: Tree,
    /// Positions of files with content.
    by_sha256: HashMap<Sha256Digest, usize>,
}

impl Indexed {
    pub fn new(tree: Tree) -> Self {
        let mut by_sha256 = HashMap::new();
        for (at, entry) in tree.entries.iter().enumerate() {
            if let Kind::File { content: Content { sha256, pack: Some(_), .. }, .. } = &entry.kind {
                by_sha256.entry(*sha256).or_insert(at);
            }
        }
        Self { tree, by_sha256 }
    }
}

/// Content that lies in the layer store already, by the trees that name it.
#[derive(Debug, Default)]
pub struct Known(Vec<KnownTree>);

#[derive(Debug)]
struct KnownTree {
    indexed: Arc<Indexed>,
    /// For each of the tree's packs, whether it is in the store.
    stored: Vec<bool>,
}

impl Known {
    /// `trees`, of which an earlier one counts before a later one; only contents whose pack `is_stored` are known.
    pub fn new(trees: Vec<Arc<Indexed>>, is_stored: impl Fn(&Digest) -> bool) -> Self {
        let known = trees.into_iter().map(|indexed| KnownTree {
            stored: indexed.tree.packs.iter().map(|pack| is_stored(&pack.digest)).collect(),
            indexed,
        });
        Self(known.collect())
    }

    /// The content of a file and the pack that it lies in. A client that says the digest means that content; without
    /// one, what fsutil compares decides: the file is the same if path, metadata, size and modification time are.
    pub(crate) fn find(&self, entry: &Entry, stat: &FileStat) -> Option<(&Content, &Pack)> {
        if let Some(sha256) = &stat.sha256 {
            let found = self.0.iter().find_map(|known| known.with_content(sha256))?;
            return (found.0.size == stat.size).then_some(found);
        }
        let (before, content, pack) = self.0.iter().find_map(|known| known.with_path(&entry.path))?;
        let of = |entry: &Entry| (entry.mode, entry.uid, entry.gid, entry.mtime_ns);
        (of(before) == of(entry) && content.size == stat.size).then_some((content, pack))
    }
}

impl KnownTree {
    fn with_content(&self, sha256: &Sha256Digest) -> Option<(&Content, &Pack)> {
        self.stored_content(&self.indexed.tree.entries[*self.indexed.by_sha256.get(sha256)?])
    }

    /// What was another name of a file is not the file that is there now.
    fn with_path(&self, path: &str) -> Option<(&Entry, &Content, &Pack)> {
        let entry = self.indexed.tree.find(path)?;
        match &entry.kind {
            Kind::File { hard_link: None, .. } => {
                self.stored_content(entry).map(|(content, pack)| (entry, content, pack))
            }
            _ => None,
        }
    }

    fn stored_content<'a>(&'a self, entry: &'a Entry) -> Option<(&'a Content, &'a Pack)> {
        match &entry.kind {
            Kind::File { content, .. } => {
                let pack = content.pack.filter(|pack| self.stored[*pack])?;
                Some((content, &self.indexed.tree.packs[pack]))
            }
            _ => None,
        }
    }
}
