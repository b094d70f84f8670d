use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, futimens, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};
use xattr::FileExt as _;

use crate::padded::Padded;
use crate::root::{Root, is_kind};
use crate::{Error, whiteout};

/// How an archive is unpacked.
#[derive(Clone, Debug, Default)]
pub struct UnpackOptions {
    /// `.wh.` entries are whiteouts for overlayfs; else they are files like any other.
    pub whiteouts: bool,
    /// Refuse to put a folder where something else stands, and the other way round (`docker cp`).
    pub no_overwrite_dir_non_dir: bool,
    /// All files belong to this user and group instead of those in the archive.
    pub owner: Option<(u32, u32)>,
}

/// Unpacks a tar into the folder `at` of the hostile tree `root` (`at` is resolved inside it, links included).
/// Returns the sum of the sizes in the entries.
///
/// # Errors
/// `InvalidArgument` for an archive that is broken or that points outside; `Exhausted` when the disk is full.
pub fn unpack(root: &Path, at: &Path, tar: impl Read, options: &UnpackOptions) -> Result<u64, Error> {
    let root = Root::open(root)?;
    let at = at.strip_prefix("/").unwrap_or(at);
    let top = root.dir(at).map_err(Error::sys("opening", at))?;
    let mut unpacker = Unpacker { root, base: at.to_owned(), options, folders: BTreeMap::new(), last: None };
    // Names in an archive are relative to the place where it is unpacked, links in the tree to the tree's root.
    unpacker.last = Some((PathBuf::new(), top));
    unpacker.run(tar)
}

struct Unpacker<'a> {
    root: Root,
    base: PathBuf,
    options: &'a UnpackOptions,
    /// Times of folders, set last, since every file made inside changes them.
    folders: BTreeMap<PathBuf, TimeSpec>,
    /// The folder of the entry before: most entries follow one another in one folder.
    last: Option<(PathBuf, OwnedFd)>,
}

/// What every entry carries.
struct Attributes {
    mode: Mode,
    uid: Uid,
    gid: Gid,
    mtime: TimeSpec,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// What an entry adds to its layer's size, as Docker's overlay2 counts: a symbolic link is as long as its target.
fn counted_bytes<R: Read>(entry: &tar::Entry<'_, R>) -> u64 {
    let is_link = entry.header().entry_type().is_symlink();
    let target = if is_link { entry.link_name_bytes() } else { None };
    target.map_or(entry.size(), |target| target.len() as u64)
}

impl Unpacker<'_> {
    fn run(&mut self, tar: impl Read) -> Result<u64, Error> {
        let mut content_bytes = 0u64;
        let (tar, end) = Padded::new(tar);
        let mut archive = tar::Archive::new(tar);
        for entry in archive.entries().map_err(Error::Archive)? {
            let mut entry = entry.map_err(Error::Archive)?;
            let path = clean(&entry.path_bytes())?;
            content_bytes = content_bytes.saturating_add(counted_bytes(&entry));
            self.entry(&path, &mut entry).map_err(|error| name_errno(error, &path))?;
            let sparse = entry.header().entry_type().is_gnu_sparse();
            let size = if sparse { entry.header().entry_size().map_err(Error::Archive)? } else { entry.size() };
            if !end.holds(entry.raw_file_position(), size) {
                return Err(Error::Archive(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        for (path, mtime) in std::mem::take(&mut self.folders) {
            // A later entry may have put something else there.
            if let Ok(folder) = self.root.dir(&self.base.join(&path)) {
                futimens(&folder, &mtime, &mtime).map_err(Error::sys("setting the time of", path))?;
            }
        }
        Ok(content_bytes)
    }

    fn entry<R: Read>(&mut self, path: &Path, entry: &mut tar::Entry<'_, R>) -> Result<(), Fault> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let attributes = self.attributes(entry)?;
        let Some(name) = path.file_name() else {
            // The archive's "./": the folder itself.
            let top = self.parent(Path::new(""))?;
            return self.finish_folder(path, &File::from(top), &attributes);
        };
        let name = Path::new(name);
        let parent = self.parent(path.parent().unwrap_or(Path::new("")))?;
        if self.options.whiteouts && self.whiteout(path, &parent, name, &attributes)? {
            return Ok(());
        }
        let replaced_whiteout = self.clear(&parent, name, kind.is_dir())?;
        match kind {
            tar::EntryType::Directory => {
                match mkdirat(&parent, name, Mode::from_bits_truncate(0o700)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                let folder =
                    openat(&parent, name, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
                let folder = File::from(folder);
                if replaced_whiteout {
                    folder.set_xattr(whiteout::OPAQUE_XATTR, b"y")?;
                }
                self.finish_folder(path, &folder, &attributes)
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                write_file(&parent, name, entry, &attributes)
            }
            tar::EntryType::Symlink => {
                let target = link_name(entry)?;
                symlinkat(OsStr::from_bytes(&target), &parent, name)?;
                self.finish_node(&parent, name, &attributes, false)
            }
            tar::EntryType::Link => {
                let target = clean(&link_name(entry)?).map_err(|e| Fault::Reason(e.to_string()))?;
                let Some(target_name) = target.file_name() else {
                    return Err(Fault::Reason("a hard link to the archive's root".to_owned()));
                };
                let target_parent = self.root.dir(&self.base.join(target.parent().unwrap_or(Path::new(""))))?;
                Ok(linkat(&target_parent, target_name, &parent, name, AtFlags::empty())?)
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                let (flag, device) = match kind {
                    tar::EntryType::Fifo => (SFlag::S_IFIFO, 0),
                    kind => {
                        let number = |field: io::Result<Option<u32>>| field.map(|n| u64::from(n.unwrap_or(0)));
                        let device =
                            makedev(number(entry.header().device_major())?, number(entry.header().device_minor())?);
                        (if kind == tar::EntryType::Char { SFlag::S_IFCHR } else { SFlag::S_IFBLK }, device)
                    }
                };
                mknodat(&parent, name, flag, Mode::from_bits_truncate(0o600), device)?;
                self.finish_node(&parent, name, &attributes, true)
            }
            other => Err(Fault::Reason(format!("unhandled tar header type {:?}", char::from(other.as_byte())))),
        }
    }

    /// Handles `.wh.` names; false for every other one.
    fn whiteout(&mut self, path: &Path, parent: &OwnedFd, name: &Path, attributes: &Attributes) -> Result<bool, Fault> {
        let bytes = name.as_os_str().as_bytes();
        if bytes == whiteout::OPAQUE_ENTRY.as_bytes() {
            File::from(parent.try_clone()?).set_xattr(whiteout::OPAQUE_XATTR, b"y")?;
            return Ok(true);
        }
        if bytes.starts_with(whiteout::META_PREFIX.as_bytes()) {
            return Ok(true);
        }
        let Some(hidden) = bytes.strip_prefix(whiteout::PREFIX.as_bytes()) else { return Ok(false) };
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::Reason("a whiteout of nothing".to_owned()));
        }
        let hidden = Path::new(OsStr::from_bytes(hidden));
        match Root::stat(parent, hidden)? {
            None => {
                mknodat(parent, hidden, SFlag::S_IFCHR, Mode::empty(), 0)?;
                self.finish_node(parent, hidden, attributes, false)?;
            }
            // A whiteout speaks of the layers below only; what this layer has at the name stays.
            Some(stat) if is_kind(&stat, SFlag::S_IFDIR) => {
                let folder =
                    openat(parent, hidden, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
                File::from(folder).set_xattr(whiteout::OPAQUE_XATTR, b"y")?;
            }
            Some(_) => {}
        }
        tracing::trace!(?path, "whiteout");
        Ok(true)
    }

    /// Makes room for an entry; a folder stays where a folder comes. Says whether a whiteout of this layer stood there.
    fn clear(&mut self, parent: &OwnedFd, name: &Path, to_folder: bool) -> Result<bool, Fault> {
        let Some(stat) = Root::stat(parent, name)? else { return Ok(false) };
        let is_folder = is_kind(&stat, SFlag::S_IFDIR);
        if is_folder && to_folder {
            return Ok(false);
        }
        if self.options.no_overwrite_dir_non_dir && is_folder != to_folder {
            let (old, new) = if is_folder { ("directory", "non-directory") } else { ("non-directory", "directory") };
            return Err(Fault::Reason(format!("cannot overwrite {old} {name:?} with {new}")));
        }
        let was_whiteout = self.options.whiteouts && is_kind(&stat, SFlag::S_IFCHR) && stat.st_rdev == 0;
        Root::remove(parent, name)?;
        self.last = None;
        Ok(was_whiteout)
    }

    fn parent(&mut self, path: &Path) -> Result<OwnedFd, Fault> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.try_clone()?);
        }
        let fd = self.root.dir_all(&self.base.join(path))?;
        self.last = Some((path.to_owned(), fd.try_clone()?));
        Ok(fd)
    }

    fn attributes<R: Read>(&self, entry: &mut tar::Entry<'_, R>) -> Result<Attributes, Fault> {
        let header = entry.header();
        let mode = header.mode()?;
        // An empty number counts as zero, as in Go's reader, which Docker uses.
        let (mut uid, mut gid) = (header.uid().unwrap_or(0), header.gid().unwrap_or(0));
        let mut mtime = TimeSpec::new(i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0);
        let mut xattrs = Vec::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let (Ok(key), value) = (extension.key(), extension.value_bytes()) else { continue };
                let number = || extension.value().ok().and_then(|value| value.parse().ok());
                match key {
                    "uid" => uid = number().unwrap_or(uid),
                    "gid" => gid = number().unwrap_or(gid),
                    "mtime" => mtime = extension.value().ok().and_then(pax_time).unwrap_or(mtime),
                    key => {
                        if let Some(name) = key.strip_prefix("SCHILY.xattr.")
                            && whiteout::is_portable_xattr(name)
                        {
                            xattrs.push((name.to_owned(), value.to_vec()));
                        }
                    }
                }
            }
        }
        let id = |id: u64| u32::try_from(id).map_err(|_| Fault::Reason(format!("user or group id {id} is too large")));
        let (uid, gid) = match self.options.owner {
            Some(owner) => owner,
            None => (id(uid)?, id(gid)?),
        };
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        Ok(Attributes { mode, uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), mtime, xattrs })
    }

    fn finish_folder(&mut self, path: &Path, folder: &File, attributes: &Attributes) -> Result<(), Fault> {
        finish_file(folder, attributes)?;
        self.folders.insert(path.to_owned(), attributes.mtime);
        Ok(())
    }

    /// Owner, mode and time of what cannot be opened safely: links and devices.
    fn finish_node(&self, parent: &OwnedFd, name: &Path, attributes: &Attributes, chmod: bool) -> Result<(), Fault> {
        fchownat(parent, name, Some(attributes.uid), Some(attributes.gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if chmod {
            // By descriptor: a name could have become a link since, and there is no chmod that does not follow one.
            let node = openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            let path = format!("/proc/self/fd/{}", node.as_raw_fd());
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(attributes.mode.bits()))?;
        }
        utimensat(parent, name, &attributes.mtime, &attributes.mtime, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }
}

fn write_file(parent: &OwnedFd, name: &Path, content: &mut impl Read, attributes: &Attributes) -> Result<(), Fault> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::from_bits_truncate(0o600))?);
    io::copy(content, &mut file)?;
    finish_file(&file, attributes)?;
    futimens(file.as_fd(), &attributes.mtime, &attributes.mtime)?;
    Ok(())
}

/// Owner before mode, since a change of owner clears the set-user-id bit and capabilities.
fn finish_file(file: &File, attributes: &Attributes) -> Result<(), Fault> {
    fchown(file, Some(attributes.uid), Some(attributes.gid))?;
    fchmod(file, attributes.mode)?;
    for (name, value) in &attributes.xattrs {
        match file.set_xattr(name, value) {
            // A file system without such attributes: Docker goes on without them too.
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
            other => other?,
        }
    }
    Ok(())
}

fn link_name<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, Fault> {
    let name = entry.link_name_bytes().ok_or_else(|| Fault::Reason("a link without a target".to_owned()))?;
    Ok(name.into_owned())
}

/// A name of an archive as a relative path without `.` and `..`.
///
/// # Errors
/// `Entry` when it leads above its root.
pub(crate) fn clean(name: &[u8]) -> Result<PathBuf, Error> {
    let refuse = |reason: &str| {
        Err(Error::Entry { name: String::from_utf8_lossy(name).into_owned(), reason: reason.to_owned() })
    };
    let mut path = PathBuf::new();
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if !path.pop() {
                    return refuse("it points outside of the archive");
                }
            }
            part if part.contains(&0) => return refuse("it has a zero byte"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// `1700000000.123456789` (POSIX pax, mtime).
fn pax_time(text: &str) -> Option<TimeSpec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.get(..9.min(fraction.len()))?;
    let nanos: i64 = format!("{digits:0<9}").parse().ok()?;
    let seconds: i64 = seconds.parse().ok()?;
    Some(TimeSpec::new(seconds, nanos))
}

/// What went wrong with one entry, before its name is added.
enum Fault {
    Io(io::Error),
    Reason(String),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn name_errno(fault: Fault, path: &Path) -> Error {
    match fault {
        // The reader's own failure, not the disk's.
        Fault::Io(source) if source.raw_os_error().is_none() => Error::Archive(source),
        // What an archive can bring about by itself: a file as a folder, a link to nowhere, a loop of links.
        Fault::Io(source)
            if matches!(
                Errno::from_raw(source.raw_os_error().unwrap_or(0)),
                Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EEXIST | Errno::EPERM | Errno::ENAMETOOLONG
            ) =>
        {
            Error::Entry { name: path.display().to_string(), reason: source.to_string() }
        }
        Fault::Io(source) => Error::Io { doing: "unpacking", path: path.to_owned(), source },
        Fault::Reason(reason) => Error::Entry { name: path.display().to_string(), reason },
    }
}
