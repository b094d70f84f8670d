//! A client's tree as steps see it: what paths and patterns lead to, and digests, without any file being laid out. Pure.

use std::collections::VecDeque;
use std::path::{Component, Path, PathBuf};

use contexts::{Entry, Kind, Tree};
use dockerfile::Glob;
use sha2::{Digest as _, Sha256};

use crate::copy::hash::{Counted, LeavesOut, What};

/// More links than this lead nowhere.
const MAX_LINKS: usize = 40;

pub struct View<'a>(pub &'a Tree);

impl View<'_> {
    /// Where a path leads, links followed inside the tree; the root is empty. `None` where nothing is.
    pub fn follow(&self, path: &Path) -> Option<String> {
        let mut waiting: VecDeque<String> = parts(path);
        let mut here: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = waiting.pop_front() {
            if part == ".." {
                here.pop();
                continue;
            }
            let next = here.iter().map(String::as_str).chain([part.as_str()]).collect::<Vec<_>>().join("/");
            match &self.0.find(&next)?.kind {
                Kind::Symlink { target } => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        here.clear();
                    }
                    for part in parts(Path::new(target)).into_iter().rev() {
                        waiting.push_front(part);
                    }
                }
                Kind::Folder => here.push(part),
                _ if waiting.is_empty() => here.push(part),
                _ => return None,
            }
        }
        Some(here.join("/"))
    }

    /// What a pattern means, in the order of names. A wildcard does not cross a slash.
    pub fn matches(&self, pattern: &str) -> Vec<PathBuf> {
        let mut found = vec![String::new()];
        for part in pattern.split('/') {
            let Some(glob) = Glob::new(part) else { return Vec::new() };
            let folders = found.iter().filter(|path| self.is_folder(path));
            found = folders
                .flat_map(|folder| self.children(folder))
                .filter(|path| glob.matches(path.rsplit('/').next().unwrap_or(path)))
                .collect();
        }
        found.into_iter().map(PathBuf::from).collect()
    }

    fn is_folder(&self, path: &str) -> bool {
        path.is_empty() || self.0.find(path).is_some_and(|entry| entry.kind == Kind::Folder)
    }

    fn children(&self, folder: &str) -> Vec<String> {
        let inside = self.0.under(folder).iter().map(|entry| entry.path.as_str());
        let depth = if folder.is_empty() { 0 } else { folder.split('/').count() };
        inside.filter(|path| path.split('/').count() == depth + 1).map(str::to_owned).collect()
    }

    /// The digest of what a path (that [`View::follow`] gave) holds: by content, mode, attributes and name, as
    /// [`hash::of`](crate::copy::hash::of) a folder with the same files. All of a context belongs to root.
    pub fn digest(&self, path: &str, leaves_out: &LeavesOut) -> String {
        let mut hasher = Sha256::new();
        if !self.is_folder(path) {
            self.0.find(path).into_iter().for_each(|entry| counted(entry, "").add_to(&mut hasher));
            return format!("file:{}", hex::encode(hasher.finalize()));
        }
        for (name, entry) in self.inside(path, leaves_out) {
            counted(entry, name).add_to(&mut hasher);
        }
        format!("dir:{}", hex::encode(hasher.finalize()))
    }

    /// What lies below a folder, by its name there.
    fn inside(&self, path: &str, leaves_out: &LeavesOut) -> Vec<(&str, &Entry)> {
        let prefix = if path.is_empty() { 0 } else { path.len() + 1 };
        let mut skipped: Option<&str> = None;
        let mut inside = Vec::new();
        for entry in self.0.under(path).iter().filter(|entry| entry.path != path) {
            if skipped.is_some_and(|folder| entry.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))) {
                continue;
            }
            let name = &entry.path[prefix..];
            match leaves_out(Path::new(name), entry.kind == Kind::Folder) {
                true => skipped = Some(&entry.path),
                false => inside.push((name, entry)),
            }
        }
        inside
    }

    /// The paths of all files that a path (that [`View::follow`] gave) leads to, each with its digest.
    pub fn files(&self, path: &str, leaves_out: &LeavesOut) -> Vec<(String, String)> {
        let entries = match self.is_folder(path) {
            true => self.inside(path, leaves_out).into_iter().map(|(_, entry)| entry).collect(),
            false => self.0.find(path).into_iter().collect::<Vec<_>>(),
        };
        let digest = |entry: &&Entry| {
            let mut hasher = Sha256::new();
            counted(entry, "").add_to(&mut hasher);
            (entry.path.clone(), hex::encode(hasher.finalize()))
        };
        entries.iter().map(digest).collect()
    }
}

fn counted<'a>(entry: &'a Entry, name: &'a str) -> Counted<'a> {
    let what = match &entry.kind {
        Kind::Folder => What::Folder,
        Kind::File { content, .. } => What::File { sha256: &content.sha256, xattrs: &entry.xattrs },
        Kind::Symlink { target } => What::Link(target.as_bytes()),
        Kind::Fifo => What::Fifo,
        Kind::Character { major, minor } => What::Device { block: false, numbers: (*major, *minor) },
        Kind::Block { major, minor } => What::Device { block: true, numbers: (*major, *minor) },
    };
    Counted { name: name.as_bytes(), mode: entry.mode, owner: None, what }
}

fn parts(path: &Path) -> VecDeque<String> {
    let part = |component: Component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::ParentDir => Some("..".to_owned()),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::hash::{self, Rules};
    use contexts::Content;

    fn tree() -> Tree {
        let entry = |path: &str, kind: Kind| Entry {
            path: path.to_owned(),
            mode: 0o644,
            uid: 7,
            gid: 7,
            mtime_ns: 5,
            xattrs: Vec::new(),
            kind,
        };
        let file = |sha256: u8| Kind::File {
            content: Content { sha256: [sha256; 32], size: 1, pack: Some(0), offset: 0 },
            hard_link: None,
        };
        let link = |target: &str| Kind::Symlink { target: target.to_owned() };
        let entries = vec![
            entry("d", Kind::Folder),
            entry("d/a.txt", file(1)),
            entry("d/s", Kind::Folder),
            entry("d/s/b.txt", file(2)),
            entry("out", link("../../d/s")),
            entry("round", link("round")),
        ];
        Tree { packs: Vec::new(), entries }
    }

    #[test]
    fn paths_and_patterns() {
        let tree = tree();
        let view = View(&tree);
        for (path, leads) in [
            ("", Some("")),
            ("/d/../d/a.txt", Some("d/a.txt")),
            ("out/b.txt", Some("d/s/b.txt")),
            ("../out", Some("d/s")),
            ("d/a.txt/x", None),
            ("round", None),
            ("none", None),
        ] {
            assert_eq!(view.follow(Path::new(path)).as_deref(), leads, "{path}");
        }
        assert_eq!(view.matches("d/*"), [PathBuf::from("d/a.txt"), PathBuf::from("d/s")]);
        assert_eq!(view.matches("*/*/b*"), [PathBuf::from("d/s/b.txt")]);
        assert!(view.matches("out/*").is_empty(), "a link to a folder has nothing below it");
    }

    /// A folder, packed as a tar and read as a tree.
    fn as_tree(folder: &Path) -> contexts::Tree {
        let mut tar = tar::Builder::new(Vec::new());
        tar.follow_symlinks(false);
        for name in ["d/x", "d/s", "d/s/y", "d/l", "d/z"] {
            let path = folder.join(name);
            if let Ok(Some(note)) = xattr::get(&path, "user.note") {
                tar.append_pax_extensions([("SCHILY.xattr.user.note", &note[..])]).expect("an attribute");
            }
            tar.append_path_with_name(&path, name).expect(name);
        }
        let tar = tar.into_inner().expect("a tar");
        let pack = contexts::Pack { digest: model::Digest::of(&tar), size: tar.len() as u64 };
        contexts::of_tar(tar.as_slice(), pack).expect("a tree")
    }

    #[test]
    fn the_same_files_have_the_same_digest_in_a_folder_and_in_a_tree() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().expect("temp folder");
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("d/s")).expect("folders");
        for (name, mode) in [("d/x", 0o4755), ("d/s/y", 0o600), ("d/z", 0o644)] {
            std::fs::write(at(name), name).expect("a file");
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).expect("a mode");
        }
        std::os::unix::fs::symlink("s/y", at("d/l")).expect("a link");
        let digests = || {
            let (root, tree) = (crate::rooted::Root::open(temp.path()).expect("root"), as_tree(temp.path()));
            let view = View(&tree);
            ["", "d", "d/s", "d/x", "d/l"].map(|path| {
                let of_folder = hash::of(&root, Path::new(path), Rules { owners: false }).expect("a digest");
                let leads = view.follow(Path::new(path)).expect("there");
                assert_eq!(of_folder, view.digest(&leads, &|_, _| false), "{path}");
                of_folder
            })
        };
        let before = digests();
        xattr::set(at("d/x"), "user.note", b"1").expect("an attribute");
        let after = digests();
        assert_eq!((&before[2], &before[4]), (&after[2], &after[4]), "they do not hold the file");
        assert!((0..=3).filter(|at| *at != 2).all(|at| before[at] != after[at]), "attributes count");
    }

    #[test]
    fn what_counts_in_a_digest() {
        let (one, nothing) = (tree(), |_: &Path, _: bool| false);
        let digest = |tree: &Tree, path: &str| View(tree).digest(path, &nothing);
        let mut other = tree();
        other.entries.iter_mut().for_each(|entry| (entry.mtime_ns, entry.uid) = (9, 9));
        assert_eq!(digest(&one, "d"), digest(&other, "d"), "times and owners do not count");
        for change in [
            (|tree| tree.entries[1].mode = 0o755) as fn(&mut Tree),
            |tree| tree.entries[1].path = "d/c.txt".to_owned(),
            |tree| tree.entries[1].kind = Kind::Fifo,
            |tree| drop(tree.entries.remove(3)),
        ] {
            let mut other = tree();
            change(&mut other);
            assert_ne!(digest(&one, "d"), digest(&other, "d"));
        }
        let no_folder = |path: &Path, _: bool| path == Path::new("s");
        let mut without = tree();
        without.entries.drain(2..4);
        assert_eq!(View(&one).digest("d", &no_folder), digest(&without, "d"), "what is left out does not count");
    }
}
