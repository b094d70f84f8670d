//! The files of a cache apart from where their contents lie, and how what two steps left is made one.

use std::collections::{BTreeMap, HashMap, HashSet};

use contexts::{Content, Entry, Kind, Pack, Sha256Digest, Tree, by_components};

/// Where contents lie in the layer store: in which pack, and at which byte of it.
pub type Places = HashMap<Sha256Digest, (Pack, u64)>;

/// A pack of which less than this part is in use is not used again, if it is large enough to matter.
const LIVE_PART: u64 = 2;
const SMALL_PACK_BYTES: u64 = 1 << 20;

/// Entries by path; their contents have no place. A folder comes before what lies in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(pub BTreeMap<String, Entry>);

impl Files {
    pub fn of(tree: &Tree) -> Self {
        let entries = tree.entries.iter().map(|entry| {
            let mut entry = entry.clone();
            if let Kind::File { content, .. } = &mut entry.kind {
                (content.pack, content.offset) = (None, 0);
            }
            (entry.path.clone(), entry)
        });
        Self(entries.collect())
    }

    /// The tree of these files; a content without a place has no pack.
    pub fn tree(&self, places: &Places) -> Tree {
        let mut tree = Tree { packs: Vec::new(), entries: self.0.values().cloned().collect() };
        tree.entries.sort_by(|a, b| by_components(&a.path, &b.path));
        let mut known = HashMap::<Pack, usize>::new();
        for entry in &mut tree.entries {
            let Kind::File { content, .. } = &mut entry.kind else { continue };
            if let Some((pack, offset)) = places.get(&content.sha256).filter(|_| content.size > 0) {
                let packs = &mut tree.packs;
                let at = *known.entry(pack.clone()).or_insert_with(|| {
                    packs.push(pack.clone());
                    packs.len() - 1
                });
                (content.pack, content.offset) = (Some(at), *offset);
            }
        }
        tree
    }

    /// Sum of the files' sizes, as of a tree.
    pub fn bytes(&self) -> u64 {
        let sizes = self.0.values().filter_map(|entry| match &entry.kind {
            Kind::File { content, hard_link: None } => Some(content.size),
            _ => None,
        });
        sizes.sum()
    }

    /// Each content once, with the path of a file that has it.
    pub fn contents(&self) -> impl Iterator<Item = (&str, &Content)> {
        let mut seen = HashSet::new();
        self.0.values().filter_map(move |entry| match &entry.kind {
            Kind::File { content, .. } if content.size > 0 && seen.insert(content.sha256) => {
                Some((entry.path.as_str(), content))
            }
            _ => None,
        })
    }
}

/// Where a tree's contents lie.
pub fn places_of(tree: &Tree) -> Places {
    let places = tree.entries.iter().filter_map(|entry| match &entry.kind {
        Kind::File { content: Content { sha256, pack: Some(pack), offset, .. }, .. } => {
            Some((*sha256, (tree.packs[*pack].clone(), *offset)))
        }
        _ => None,
    });
    places.collect()
}

/// Forgets places in packs of which `files` use little, where all that they use is in `here` and can be stored anew: what
/// was changed or removed would else stay in the layer store for as long as one file of its pack does.
pub fn leave_waste(places: &mut Places, files: &Files, here: &Files) {
    let here: HashSet<Sha256Digest> = here.contents().map(|(_, content)| content.sha256).collect();
    let mut live = HashMap::<Pack, (u64, bool)>::new();
    for (_, content) in files.contents() {
        if let Some((pack, _)) = places.get(&content.sha256) {
            let (bytes, is_here) = live.entry(pack.clone()).or_insert((0, true));
            *bytes += content.size;
            *is_here &= here.contains(&content.sha256);
        }
    }
    places.retain(|_, (pack, _)| {
        let (bytes, is_here) = live.get(pack).copied().unwrap_or((0, true));
        pack.size <= SMALL_PACK_BYTES || bytes * LIVE_PART >= pack.size || !is_here
    });
}

/// What is stored when a step ends that began with `base` and left `ours`, while others have stored `theirs`: of each path
/// that the step has made, changed or removed, as it left it; of all others what is stored.
pub fn merge(base: &Files, ours: &Files, theirs: &Files) -> Files {
    let mut merged = theirs.0.clone();
    for path in base.0.keys().filter(|path| !ours.0.contains_key(*path)) {
        merged.remove(path);
    }
    for (path, entry) in ours.0.iter().filter(|(path, entry)| base.0.get(*path) != Some(entry)) {
        // What the folders above it are now is the step's matter too.
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            if let Some(folder) = ours.0.get(parent)
                && merged.get(parent).is_none_or(|there| there.kind != Kind::Folder)
            {
                merged.insert(parent.to_owned(), folder.clone());
            }
            above = parent;
        }
        merged.insert(path.clone(), entry.clone());
    }
    whole(merged)
}

/// Drops what lies in no folder, and unties links whose file is another now.
fn whole(mut merged: BTreeMap<String, Entry>) -> Files {
    let mut folders = HashSet::new();
    merged.retain(|path, entry| {
        let is_placed = path.rsplit_once('/').is_none_or(|(parent, _)| folders.contains(parent));
        if is_placed && entry.kind == Kind::Folder {
            folders.insert(path.clone());
        }
        is_placed
    });
    let untied: Vec<String> =
        merged.values().filter(|entry| !is_tied(entry, &merged)).map(|e| e.path.clone()).collect();
    for path in untied {
        if let Some(Entry { kind: Kind::File { hard_link, .. }, .. }) = merged.get_mut(&path) {
            *hard_link = None;
        }
    }
    Files(merged)
}

fn is_tied(entry: &Entry, all: &BTreeMap<String, Entry>) -> bool {
    let Kind::File { content, hard_link: Some(first) } = &entry.kind else { return true };
    let first = all.get(first).filter(|first| by_components(&first.path, &entry.path).is_lt());
    matches!(first.map(|first| &first.kind), Some(Kind::File { content: same, hard_link: None }) if same == content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `d/` a folder, `f=1` a file with content 1, `h~f=1` a hard link to f.
    fn files(words: &str) -> Files {
        let content = |text: &str| Content { sha256: [text.as_bytes()[0]; 32], size: 10, pack: None, offset: 0 };
        let entry = |word: &str| {
            let (path, kind) = match (word.strip_suffix('/'), word.split_once('=')) {
                (Some(path), _) => (path, Kind::Folder),
                (None, Some((path, text))) => {
                    let (path, link) = path.split_once('~').map_or((path, None), |(path, first)| (path, Some(first)));
                    (path, Kind::File { content: content(text), hard_link: link.map(str::to_owned) })
                }
                (None, None) => panic!("{word}"),
            };
            let entry =
                Entry { path: path.to_owned(), mode: 0o644, uid: 0, gid: 0, mtime_ns: 0, xattrs: Vec::new(), kind };
            (path.to_owned(), entry)
        };
        Files(words.split_whitespace().map(entry).collect())
    }

    #[test]
    fn what_two_steps_left_is_one() {
        for (base, ours, theirs, wanted) in [
            ("", "a=1", "b=2", "a=1 b=2"),
            ("a=1", "a=2", "a=3", "a=2"),
            ("a=1", "a=1", "a=3", "a=3"),
            ("a=1 b=1", "b=1", "a=1 b=1 c=1", "b=1 c=1"),
            ("a=1", "a=1 b=2", "", "b=2"),
            // A folder that the step has removed takes along what others made in it.
            ("d/ d/x=1", "", "d/ d/x=1 d/y=2", ""),
            // A folder that others have removed is there again where the step wrote in it.
            ("d/ d/x=1", "d/ d/x=2", "", "d/ d/x=2"),
            ("d/", "d/ d/x=1", "d=5", "d/ d/x=1"),
            ("d/", "d=5", "d/ d/x=1", "d=5"),
            // Links to a file that is another now are files of their own.
            ("f=1 h~f=1", "f=1 h~f=1", "f=2 h~f=1", "f=2 h=1"),
            ("f=1", "f=1 h~f=1", "", "h=1"),
            ("", "f=1 h~f=1", "z=1", "f=1 h~f=1 z=1"),
        ] {
            let merged = merge(&files(base), &files(ours), &files(theirs));
            assert_eq!(merged, files(wanted), "{base} | {ours} | {theirs}");
            contexts::Tree::decode(&merged.tree(&places("0123456789")).encode()).expect("a whole tree");
        }
    }

    fn places(contents: &str) -> Places {
        let pack = Pack { digest: model::Digest::of(contents.as_bytes()), size: contents.len() as u64 * 10 };
        contents.bytes().zip(0..).map(|(byte, at)| ([byte; 32], (pack.clone(), at * 10))).collect()
    }

    #[test]
    fn a_tree_knows_where_its_contents_lie() {
        let (files, places) = (files("d/ d/a=1 d/b=2 c~d/a=1"), places("12"));
        let tree = files.tree(&places);
        assert_eq!((Files::of(&tree), places_of(&tree)), (files.clone(), places));
        assert_eq!((tree.packs.len(), files.contents().count()), (1, 2));
    }

    #[test]
    fn packs_of_waste_are_left() {
        let large = |name: &str| Pack { digest: model::Digest::of(name.as_bytes()), size: 4 << 20 };
        let mut places = Places::from([([b'1'; 32], (large("a"), 0)), ([b'2'; 32], (large("b"), 0))]);
        let mut files = files("a=1 b=2");
        if let Some(Entry { kind: Kind::File { content, .. }, .. }) = files.0.get_mut("a") {
            content.size = 3 << 20;
        }
        leave_waste(&mut places, &files, &Files::default());
        assert_eq!(places.len(), 2, "nothing of it is here");
        leave_waste(&mut places, &files, &files);
        assert!(places.contains_key(&[b'1'; 32]) && !places.contains_key(&[b'2'; 32]));
    }
}
