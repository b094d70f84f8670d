use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::Error;
use crate::root::Root;

/// One thing in a tree.
pub struct Node {
    /// Relative to the tree's root.
    pub path: PathBuf,
    /// How to reach it while it is visited: its name below a descriptor of its folder. Its last part may have become
    /// a link, and must not be followed.
    pub full: PathBuf,
    pub metadata: Metadata,
}

/// Visits all below `root` in the order of names, a folder before what is in it, without following links. A running
/// container may change the tree meanwhile: folders are opened inside the root, so that no link put in place of one
/// leads out.
pub fn walk(root: &Path, visit: &mut dyn FnMut(Node) -> Result<(), Error>) -> Result<(), Error> {
    walk_in(&Root::open(root)?, visit)
}

/// [`walk`] in a root that is open already.
pub fn walk_in(root: &Root, visit: &mut dyn FnMut(Node) -> Result<(), Error>) -> Result<(), Error> {
    let mut waiting = children(root, Path::new(""))?;
    let mut last: Option<(PathBuf, OwnedFd)> = None;
    while let Some(path) = waiting.pop() {
        let parent = path.parent().unwrap_or(Path::new(""));
        if last.as_ref().is_none_or(|(known, _)| known != parent) {
            last = match root.dir(parent) {
                Ok(folder) => Some((parent.to_owned(), folder)),
                Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
                Err(errno) => return Err(Error::sys("opening", parent)(errno)),
            };
        }
        let (Some((_, folder)), Some(name)) = (&last, path.file_name()) else { continue };
        let full = pinned(folder).join(name);
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            // A running container removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("reading", path)(error)),
        };
        let is_folder = metadata.is_dir();
        visit(Node { path: path.clone(), full, metadata })?;
        if is_folder {
            waiting.extend(children(root, &path)?);
        }
    }
    Ok(())
}

/// A path that leads to an open folder whatever happens to its name.
pub fn pinned(folder: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// The names in a folder, last first, as a stack wants them.
fn children(root: &Root, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let opened = match root.open_at(folder, OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_NOFOLLOW) {
        Ok(opened) => opened,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if !folder.as_os_str().is_empty() => return Ok(Vec::new()),
        Err(errno) => return Err(Error::sys("opening", folder)(errno)),
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(pinned(&opened)).map_err(Error::io("listing", folder))? {
        paths.push(folder.join(entry.map_err(Error::io("listing", folder))?.file_name()));
    }
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

/// Sum of the sizes of a tree's files and symbolic links, hard links once, as Docker's overlay2 counts a layer.
///
/// # Errors
/// `NotFound` when the folder is not there.
pub fn upper_size(upper: &Path) -> Result<u64, Error> {
    let mut seen = HashSet::new();
    let mut bytes = 0u64;
    walk(upper, &mut |node| {
        let metadata = &node.metadata;
        let counts = metadata.is_file() || metadata.is_symlink();
        if counts && (metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino()))) {
            bytes = bytes.saturating_add(metadata.len());
        }
        Ok(())
    })?;
    Ok(bytes)
}
