use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::Error;

/// A folder whose inside is hostile: every path given to it is resolved by the kernel with this folder as `/`, so that
/// neither `..` nor a symbolic link leads out, even when another process moves things meanwhile.
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("opening", path))?;
        Ok(Self::of(file.into()))
    }

    /// A folder that is open already.
    pub fn of(folder: OwnedFd) -> Self {
        Self { fd: folder }
    }

    /// Opens a folder inside; an empty path is the root itself.
    pub fn dir(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlag::O_DIRECTORY | OFlag::O_RDONLY)
    }

    /// Opens with `flags`; the last part may be a link only where `flags` follow links.
    pub fn open_at(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.fd, path, how) {
                // The kernel could not prove that a racing rename stayed inside; it asks for another try.
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
    }

    /// Opens a folder inside, and makes the ones that are missing (0755, root).
    pub fn dir_all(&self, path: &Path) -> Result<OwnedFd, Errno> {
        match self.dir(path) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let mut done = PathBuf::new();
        let mut here = self.dir(&done)?;
        for part in path {
            done.push(part);
            here = match self.dir(&done) {
                Err(Errno::ENOENT) => {
                    mkdirat(&here, part, Mode::from_bits_truncate(0o755))?;
                    self.dir(&done)?
                }
                other => other?,
            };
        }
        Ok(here)
    }

    /// What stands at `name` in the folder `parent`, without following it.
    pub fn stat(parent: impl AsFd, name: &Path) -> Result<Option<FileStat>, Errno> {
        match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Removes `name` in `parent` with all below it. It never follows a link.
    pub fn remove(parent: impl AsFd, name: &Path) -> Result<(), Errno> {
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {}
            other => return other,
        }
        let folder = nix::fcntl::openat(
            &parent,
            name,
            OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let mut listing = nix::dir::Dir::from_fd(folder.try_clone().map_err(|_| Errno::EMFILE)?)?;
        let names: Vec<_> = listing
            .iter()
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_owned())
            .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
            .collect();
        for child in names {
            Self::remove(&folder, Path::new(std::ffi::OsStr::from_bytes(child.to_bytes())))?;
        }
        unlinkat(&parent, name, UnlinkatFlags::RemoveDir)
    }
}

pub fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}
