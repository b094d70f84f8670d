//! An image as lines of text, so that what differs can be read, and listed.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::Value;

use super::tree::{Kind, Node, Tree};

/// The time that all files of the contexts have: 2020-01-01.
pub const CONTEXT_TIME: u64 = 1_577_836_800;
/// Longer contents are told by their checksum.
const LONGEST_CONTENT: usize = 400;
/// What container runtimes make in a root for their mounts; BuildKit leaves it in the layer of a RUN.
const MOUNT_POINTS: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/resolv.conf", "/run"];

/// An image as `docker save` writes it.
pub struct Image {
    pub tree: Tree,
    config: Value,
}

impl Image {
    /// Reads a docker-archive with one image.
    pub fn read(archive: &[u8]) -> Self {
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        for entry in tar::Archive::new(archive).entries().expect("a tar") {
            let mut entry = entry.expect("a whole tar");
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if let Some(target) = entry.link_name_bytes() {
                // A layer that is in the image twice: `../ID/layer.tar`.
                let target = String::from_utf8_lossy(&target).trim_start_matches("../").to_owned();
                links.insert(name, target);
                continue;
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("a whole tar");
            files.insert(name, content);
        }
        let file = |name: &str| {
            let name = links.get(name).map_or(name, String::as_str);
            files.get(name).unwrap_or_else(|| panic!("the archive has no {name}"))
        };
        let manifest: Value = serde_json::from_slice(file("manifest.json")).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a name").to_owned();
        let config = serde_json::from_slice(file(&text(&manifest[0]["Config"]))).expect("JSON");
        let mut tree = Tree::default();
        for layer in manifest[0]["Layers"].as_array().expect("layers") {
            tree.apply(file(&text(layer)));
        }
        Self { tree, config }
    }

    /// What it has that `base` has not, and what is gone: a line a path.
    pub fn files(&self, base: &Self) -> Vec<String> {
        let mut first_names = BTreeMap::new();
        let mut lines = Vec::new();
        for (path, node) in &self.tree.nodes {
            let old = base.tree.nodes.get(path);
            let first = match node.kind {
                Kind::File { number, .. } => first_names.entry(number).or_insert_with(|| path.clone()) != path,
                _ => false,
            };
            let same = old.is_some_and(|old| is_same(old, node));
            if !(same || MOUNT_POINTS.contains(&path.as_str()) && is_empty(node)) {
                let name = match node.kind {
                    Kind::File { number, .. } if first => Some(first_names[&number].as_str()),
                    _ => None,
                };
                lines.push(line(path, node, name));
            }
        }
        let gone = base.tree.nodes.keys().filter(|path| !self.tree.nodes.contains_key(*path));
        lines.extend(gone.map(|path| format!("gone {path}")));
        lines
    }

    /// Config and history: a line a value.
    pub fn config(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for part in ["architecture", "os", "author", "config"] {
            flatten(part, &self.config[part], &mut lines);
        }
        for row in self.config["history"].as_array().into_iter().flatten() {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let layer = if row["empty_layer"] == true { "no layer" } else { "layer" };
            let mut line = format!("history: {layer}: {:?} {:?}", text("created_by"), text("comment"));
            if !text("author").is_empty() {
                line += &format!(" by {}", text("author"));
            }
            lines.push(line);
        }
        let layers = self.config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
        lines.push(format!("layers: {layers}"));
        lines
    }
}

/// Folders of the base may have been written to: their times do not count.
fn is_same(old: &Node, new: &Node) -> bool {
    let content = match (&old.kind, &new.kind) {
        (Kind::File { content: a, .. }, Kind::File { content: b, .. }) => a == b,
        (a, b) => a == b,
    };
    let time = old.mtime == new.mtime || new.kind == Kind::Folder;
    content && time && (old.mode, old.owner, &old.xattrs) == (new.mode, new.owner, &new.xattrs)
}

fn is_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::Folder => true,
        Kind::File { content, .. } => content.is_empty(),
        Kind::Link(_) | Kind::Other(_) => false,
    }
}

/// `same_as`: the first name of a file with several.
fn line(path: &str, node: &Node, same_as: Option<&str>) -> String {
    let what = match (&node.kind, same_as) {
        (Kind::File { .. }, Some(first)) => return format!("name {path} of {first}"),
        (Kind::Folder, _) => "folder".to_owned(),
        (Kind::File { .. }, None) => "file".to_owned(),
        (Kind::Link(_), _) => "link".to_owned(),
        (Kind::Other(kind), _) => (*kind).to_owned(),
    };
    let time = match node.mtime {
        // Older BuildKits give folders the time of the copy, later ones their own.
        _ if node.kind == Kind::Folder => "",
        CONTEXT_TIME => "",
        0 => " epoch",
        _ => " now",
    };
    let mut line = format!("{what} {:o} {}:{}{time} {path:?}", node.mode, node.owner.0, node.owner.1);
    line = line.replace('"', "");
    match &node.kind {
        Kind::File { content, .. } => match std::str::from_utf8(content) {
            Ok(text) if text.len() <= LONGEST_CONTENT => line += &format!(" {text:?}"),
            _ => line += &format!(" {} bytes {}", content.len(), kit::sha256(content)),
        },
        Kind::Link(target) => line += &format!(" -> {target}"),
        Kind::Folder | Kind::Other(_) => {}
    }
    for (name, value) in &node.xattrs {
        line += &format!(" {name}={}", String::from_utf8_lossy(value).escape_debug());
    }
    line
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(map) if map.is_empty() => {}
        Value::Object(map) => {
            for (key, value) in map {
                flatten(&format!("{path}.{key}"), value, lines);
            }
        }
        // What a config does not hold and what it holds without a value is the same to every engine.
        Value::Null => {}
        Value::Bool(false) => {}
        Value::String(text) if text.is_empty() => {}
        Value::Array(list) if list.is_empty() => {}
        other => lines.push(format!("{path}: {other}")),
    }
}
