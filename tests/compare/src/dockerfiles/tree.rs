//! The file system of an image, put together from its layers.

use std::collections::BTreeMap;
use std::io::Read as _;

/// What lies at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u64, u64),
    /// Seconds since 1970.
    pub mtime: u64,
    /// `SCHILY.xattr.*` of the archive.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Folder,
    /// Files with the same number are one file with several names.
    File {
        content: Vec<u8>,
        number: usize,
    },
    Link(String),
    Other(&'static str),
}

/// By path, with a leading slash and without a trailing one.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub nodes: BTreeMap<String, Node>,
    files: usize,
}

impl Tree {
    /// Puts a layer (a plain tar) on top, as a container's mount would show it.
    pub fn apply(&mut self, layer: &[u8]) {
        let mut archive = tar::Archive::new(layer);
        let mut fresh = BTreeMap::new();
        for entry in archive.entries().expect("a tar") {
            let mut entry = entry.expect("a whole tar");
            let path = path_of(&entry.path_bytes());
            let (folder, name) = path.rsplit_once('/').unwrap_or_default();
            if name == ".wh..wh..opq" {
                self.remove_below(folder);
            } else if let Some(name) = name.strip_prefix(".wh.") {
                self.remove(&format!("{folder}/{name}"));
            } else {
                let node = self.read(&mut entry, &fresh);
                fresh.insert(path, node);
            }
        }
        for (path, node) in fresh {
            if node.kind != Kind::Folder {
                self.remove(&path);
            }
            self.nodes.insert(path, node);
        }
    }

    fn read(&mut self, entry: &mut tar::Entry<'_, &[u8]>, fresh: &BTreeMap<String, Node>) -> Node {
        let link = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Symlink => Kind::Link(link.expect("a link has a target")),
            tar::EntryType::Link => {
                let target = path_of(link.expect("a link has a target").as_bytes());
                let node = fresh.get(&target).or_else(|| self.nodes.get(&target));
                return node.unwrap_or_else(|| panic!("a hard link to {target}, which is not there")).clone();
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).expect("a whole tar");
                self.files += 1;
                Kind::File { content, number: self.files }
            }
            tar::EntryType::Char => Kind::Other("character device"),
            tar::EntryType::Block => Kind::Other("block device"),
            tar::EntryType::Fifo => Kind::Other("pipe"),
            other => panic!("an entry of kind {other:?}"),
        };
        let mut xattrs = BTreeMap::new();
        for extension in entry.pax_extensions().expect("readable extensions").into_iter().flatten() {
            let extension = extension.expect("a readable extension");
            if let Some(name) = extension.key().expect("a name").strip_prefix("SCHILY.xattr.") {
                xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
            }
        }
        let header = entry.header();
        let owner = (header.uid().expect("an owner"), header.gid().expect("a group"));
        Node {
            kind,
            mode: header.mode().expect("a mode") & 0o7777,
            owner,
            mtime: header.mtime().expect("a time"),
            xattrs,
        }
    }

    fn remove(&mut self, path: &str) {
        self.nodes.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, folder: &str) {
        let inside = format!("{folder}/");
        self.nodes.retain(|path, _| !path.starts_with(&inside));
    }
}

fn path_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let inside = text.trim_start_matches("./").trim_matches('/');
    if inside == "." { String::new() } else { format!("/{inside}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::Archive;

    #[test]
    fn layers_cover_and_hide() {
        let mut tree = Tree::default();
        let mut lower = Archive::new();
        lower.folder("a/").file("a/one", 0o644, b"1").file("a/two", 0o600, b"2").file("b", 0o644, b"b");
        lower.hard_link("c", "b");
        tree.apply(&lower.finish());
        let mut upper = Archive::new();
        upper.folder("a/").file("a/.wh.one", 0o644, b"").file("b", 0o755, b"new").symlink("l", "a");
        tree.apply(&upper.finish());
        let paths: Vec<&str> = tree.nodes.keys().map(String::as_str).collect();
        assert_eq!(paths, ["/a", "/a/two", "/b", "/c", "/l"]);
        assert!(matches!(&tree.nodes["/c"].kind, Kind::File { content, .. } if content == b"b"));
        assert_eq!(tree.nodes["/b"].mode, 0o755);
        let mut opaque = Archive::new();
        opaque.folder("a/").file("a/.wh..wh..opq", 0o644, b"").file("a/three", 0o644, b"3");
        tree.apply(&opaque.finish());
        assert!(!tree.nodes.contains_key("/a/two") && tree.nodes.contains_key("/a/three"));
    }
}
