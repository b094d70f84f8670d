use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::Error;

/// One thing in a tree.
pub struct Node {
    /// Relative to the tree's root.
    pub path: PathBuf,
    pub metadata: Metadata,
}

/// Visits all below `root` in the order of names, a folder before what is in it, without following links.
/// `root` must not change meanwhile, or belong to someone who could gain by it: paths are opened by name.
pub fn walk(root: &Path, visit: &mut dyn FnMut(Node) -> Result<(), Error>) -> Result<(), Error> {
    let mut waiting = children(root, Path::new(""))?;
    while let Some(path) = waiting.pop() {
        let full = root.join(&path);
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            // A running container removed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("reading", full)(error)),
        };
        let is_folder = metadata.is_dir();
        visit(Node { path: path.clone(), metadata })?;
        if is_folder {
            waiting.extend(children(root, &path)?);
        }
    }
    Ok(())
}

/// The names in a folder, last first, as a stack wants them.
fn children(root: &Path, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let full = root.join(folder);
    let entries = match fs::read_dir(&full) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.as_os_str().is_empty() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("listing", full)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(folder.join(entry.map_err(Error::io("listing", &full))?.file_name()));
    }
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

/// Sum of the sizes of a tree's regular files, hard links once.
///
/// # Errors
/// `NotFound` when the folder is not there.
pub fn upper_size(upper: &Path) -> Result<u64, Error> {
    let mut seen = HashSet::new();
    let mut bytes = 0u64;
    walk(upper, &mut |node| {
        let metadata = &node.metadata;
        if metadata.is_file() && (metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino()))) {
            bytes = bytes.saturating_add(metadata.len());
        }
        Ok(())
    })?;
    Ok(bytes)
}
