use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread;

use model::DiffId;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::{Error, Snapshots};

/// The kernel takes one page of options.
const MAX_OPTION_BYTES: usize = 4095;

/// A container's root: layers below, one writable folder above.
#[derive(Clone, Copy, Debug)]
pub struct MountSpec<'a> {
    /// Base layer first; none for `FROM scratch`.
    pub layers: &'a [DiffId],
    /// Absolute, as are the next two; `upper` and `work` lie on one file system.
    pub upper: &'a Path,
    pub work: &'a Path,
    pub target: &'a Path,
}

impl Snapshots {
    /// Mounts an overlay. The folders of the specification must be there.
    ///
    /// `redirect_dir`, `metacopy` and `index` are off: an upper folder then holds all that it changed in plain files and
    /// whiteouts, so that it can become a layer.
    ///
    /// # Errors
    /// `NotFound` when a layer is not unpacked here; `InvalidArgument` for more layers than one mount takes.
    pub fn mount(&self, spec: &MountSpec<'_>) -> Result<(), Error> {
        let options = self.options(spec)?;
        let (layers, target) = (self.layers(), spec.target.to_owned());
        // The layers are named relative to the current folder, which a thread of its own may change for itself.
        let mounting = move || -> Result<(), Errno> {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(&layers)?;
            mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(options.as_slice()))
        };
        let outcome = thread::Builder::new()
            .name("mount".to_owned())
            .spawn(mounting)
            .map_err(Error::io("mounting", spec.target))?
            .join()
            .unwrap_or(Err(Errno::EIO));
        outcome.map_err(Error::sys("mounting", spec.target))
    }

    fn options(&self, spec: &MountSpec<'_>) -> Result<Vec<u8>, Error> {
        let mut lower = Vec::new();
        let mut seen = HashSet::new();
        // The top one comes first. A layer that occurs twice counts where it is highest: it hides there all that it is
        // below, and overlayfs refuses the same folder twice.
        for layer in spec.layers.iter().rev().filter(|layer| seen.insert(layer.hex().to_owned())) {
            let folder = self.folder(layer)?;
            if !lower.is_empty() {
                lower.push(b':');
            }
            lower.extend_from_slice(folder.file_name().unwrap_or_default().as_bytes());
        }
        if lower.is_empty() {
            lower.extend_from_slice(b"empty");
        }
        let mut options = b"redirect_dir=nofollow,metacopy=off,index=off,lowerdir=".to_vec();
        options.extend(lower);
        for (key, path) in [("upperdir", spec.upper), ("workdir", spec.work)] {
            add(&mut options, &format!(",{key}="), path);
        }
        if options.len() > MAX_OPTION_BYTES {
            return Err(Error::TooManyLayers(spec.layers.len()));
        }
        Ok(options)
    }
}

fn add(options: &mut Vec<u8>, key: &str, path: &Path) {
    options.extend_from_slice(key.as_bytes());
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            options.push(b'\\');
        }
        options.push(byte);
    }
}

/// Mounts a plain folder with a writable one on top, which must not change by itself meanwhile. All folders must be there.
///
/// # Errors
/// What the kernel says.
pub fn mount_over(lower: &Path, upper: &Path, work: &Path, target: &Path) -> Result<(), Error> {
    let mut options = b"redirect_dir=nofollow,metacopy=off,index=off".to_vec();
    for (key, path) in [(",lowerdir=", lower), (",upperdir=", upper), (",workdir=", work)] {
        add(&mut options, key, path);
    }
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_slice()))
        .map_err(Error::sys("mounting", target))
}

/// Takes a mount away; one that is still in use vanishes with its last user. Nothing happens when nothing is mounted.
///
/// # Errors
/// What the kernel says.
pub fn unmount(target: &Path) -> Result<(), Error> {
    match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::sys("unmounting", target)(errno)),
    }
}
