//! A folder whose inside is hostile: every path is resolved as if the folder were `/`.
//!
//! Invariant: no symbolic link, `..` or absolute path inside leads out, because the kernel resolves each path with
//! `RESOLVE_IN_ROOT`; the last component is acted upon relative to its folder's descriptor and never followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

/// How often a lookup that raced with a rename is tried again.
const RETRIES: usize = 64;

/// An open folder that stands for `/`.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// A name in an open folder.
#[derive(Debug)]
pub struct Place {
    pub dir: Arc<OwnedFd>,
    pub name: OsString,
}

/// Owner of what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { fd })
    }

    fn lookup(&self, path: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..RETRIES {
            match openat2(&self.fd, path, how) {
                Err(Errno::EAGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Opens a file or a folder for reading; links are followed inside the root.
    ///
    /// # Errors
    /// `InvalidInput` for all else: what a device stands for is the machine's, and to open it may do something already.
    pub fn read(&self, path: &Path) -> io::Result<File> {
        let found = self.lookup(path, OFlag::O_PATH, Mode::empty())?;
        must_be_readable(&fstat(&found)?)?;
        // By its descriptor, so that it is what was looked at.
        File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
    }

    /// Opens a folder to look up names in it.
    pub fn dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.lookup(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())
    }

    /// Stat of what the path leads to.
    pub fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(fstat(self.lookup(path, OFlag::O_PATH, Mode::empty())?)?)
    }

    /// Where a path leads, relative to the root.
    pub fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        let at = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let real = at(&self.lookup(path, OFlag::O_PATH, Mode::empty())?)?;
        real.strip_prefix(at(&self.fd)?).map(Path::to_owned).map_err(io::Error::other)
    }

    /// The folder that a path's last component lies in, and that component. The root itself has none.
    pub fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(Errno::EINVAL)?.to_owned();
        let dir = self.dir(path.parent().unwrap_or(Path::new("")))?;
        Ok(Place { dir: Arc::new(dir), name })
    }

    /// Makes a folder and all above it that are missing, owned by root with mode 0755. Says whether the last was made.
    pub fn make_dirs(&self, path: &Path) -> io::Result<bool> {
        self.make_dirs_as(path, &|_| Ok(()))
    }

    /// The same; what is made is given to `describe` at once, before anything is made in it.
    pub fn make_dirs_as(&self, path: &Path, describe: &dyn Fn(&Place) -> io::Result<()>) -> io::Result<bool> {
        let mut made = false;
        let mut so_far = PathBuf::new();
        for component in path.components() {
            let Component::Normal(name) = component else {
                so_far.push(component);
                continue;
            };
            so_far.push(name);
            made = false;
            match self.stat(&so_far) {
                Ok(stat) if is_dir(&stat) => {}
                Ok(_) => return Err(Errno::ENOTDIR.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // A dangling link leads to where the folder is missing.
                    let target = self.resolve_missing(&so_far)?;
                    if target != so_far {
                        self.make_dirs_as(&target, describe)?;
                    } else {
                        let place = self.place(&so_far)?;
                        place.make_dir(0o755)?;
                        describe(&place)?;
                    }
                    made = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// Where a path leads whose last component may be a link to nothing: the path that would come to be.
    pub fn resolve_missing(&self, path: &Path) -> io::Result<PathBuf> {
        let mut path = path.to_owned();
        for _ in 0..40 {
            let Ok(place) = self.place(&path) else {
                return Ok(path);
            };
            let Ok(target) = place.read_link() else {
                return Ok(path);
            };
            let parent = path.parent().unwrap_or(Path::new(""));
            path = clean(&parent.join(target));
        }
        Err(Errno::ELOOP.into())
    }
}

impl Place {
    /// Stat of the name itself; `None` when it is not there.
    pub fn stat(&self) -> io::Result<Option<FileStat>> {
        match fstatat(&self.dir, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn read_link(&self) -> io::Result<OsString> {
        Ok(readlinkat(&self.dir, self.name.as_os_str())?)
    }

    /// Opens a file or a folder for reading, never through a link. The caller knows by its stat that it is one.
    ///
    /// # Errors
    /// `InvalidInput` for all else.
    pub fn read(&self) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = nix::fcntl::openat(&self.dir, self.name.as_os_str(), flags, Mode::empty())?;
        must_be_readable(&fstat(&file)?)?;
        Ok(File::from(file))
    }

    /// Makes a new file; what bore the name is removed first.
    pub fn create(&self) -> io::Result<File> {
        match self.create_new() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove()?;
                self.create_new()
            }
            created => created,
        }
    }

    /// Makes a new file; `AlreadyExists` where something bears the name.
    pub fn create_new(&self) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(nix::fcntl::openat(&self.dir, self.name.as_os_str(), flags, Mode::from_bits_truncate(0o600))?))
    }

    /// Makes a folder with exactly this mode.
    pub fn make_dir(&self, mode: u32) -> io::Result<()> {
        mkdirat(&self.dir, self.name.as_os_str(), Mode::from_bits_truncate(0o700))?;
        self.set_mode(mode)
    }

    pub fn symlink(&self, target: &OsStr) -> io::Result<()> {
        self.remove()?;
        Ok(symlinkat(target, &self.dir, self.name.as_os_str())?)
    }

    /// Makes this name another name of `target`, which is not followed.
    pub fn hard_link(&self, target: &Place) -> io::Result<()> {
        self.remove()?;
        let none = LinkatFlags::empty();
        Ok(linkat(&target.dir, target.name.as_os_str(), &self.dir, self.name.as_os_str(), none)?)
    }

    pub fn fifo(&self) -> io::Result<()> {
        self.node(SFlag::S_IFIFO, 0)
    }

    /// Makes a pipe or a device as the one with this stat; says whether it is one. A socket is nothing without its process.
    ///
    /// What a device may be used for is up to whoever runs the image: a container has its own rules for that.
    pub fn special(&self, stat: &FileStat) -> io::Result<bool> {
        match kind(stat) {
            kind @ (SFlag::S_IFIFO | SFlag::S_IFCHR | SFlag::S_IFBLK) => self.node(kind, stat.st_rdev).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Makes a device node, of a block device or a character device, by its two numbers.
    pub fn device(&self, block: bool, (major, minor): (u32, u32)) -> io::Result<()> {
        let kind = if block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        self.node(kind, nix::sys::stat::makedev(major.into(), minor.into()))
    }

    fn node(&self, kind: SFlag, device: u64) -> io::Result<()> {
        self.remove()?;
        Ok(mknodat(&self.dir, self.name.as_os_str(), kind, Mode::from_bits_truncate(0o600), device)?)
    }

    /// Removes whatever bears the name, a folder with all it holds; nothing there is fine.
    pub fn remove(&self) -> io::Result<()> {
        match unlinkat(&self.dir, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) => self.remove_dir(),
            Err(error) => Err(error.into()),
        }
    }

    fn remove_dir(&self) -> io::Result<()> {
        for child in self.children()? {
            child.remove()?;
        }
        Ok(unlinkat(&self.dir, self.name.as_os_str(), UnlinkatFlags::RemoveDir)?)
    }

    /// What lies in the folder that bears this name, sorted; the folder is opened once for all of it.
    pub fn children(&self) -> io::Result<Vec<Place>> {
        let dir = self.open_folder()?;
        let names = names(Dir::from_fd(self.open_dir(OFlag::O_RDONLY)?)?)?;
        Ok(names.into_iter().map(|name| Place { dir: dir.clone(), name }).collect())
    }

    /// The folder that bears this name, to make names in it.
    pub fn open_folder(&self) -> io::Result<Arc<OwnedFd>> {
        Ok(Arc::new(self.open_dir(OFlag::O_PATH)?))
    }

    fn open_dir(&self, flags: OFlag) -> io::Result<OwnedFd> {
        let flags = flags | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(nix::fcntl::openat(&self.dir, self.name.as_os_str(), flags, Mode::empty())?)
    }

    pub fn set_owner(&self, owner: Owner) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        Ok(fchownat(&self.dir, self.name.as_os_str(), Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Sets the mode of a file, fifo or folder. The caller has just made it, so it is no link.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&self.dir, self.name.as_os_str(), flags, Mode::empty())?;
        // An O_PATH descriptor takes no fchmod; its entry in /proc does, and leads to this very inode.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777))
    }

    /// Sets the time of change; links are not followed.
    pub fn set_times(&self, seconds: i64, nanos: i64) -> io::Result<()> {
        let time = TimeSpec::new(seconds, nanos);
        let flag = UtimensatFlags::NoFollowSymlink;
        Ok(utimensat(&self.dir, self.name.as_os_str(), &time, &time, flag)?)
    }
}

/// Sets owner, mode and time of change of a file that was just made, in this order: a change of owner clears the
/// set-user-id bit. The time is in seconds and nanoseconds since 1970.
pub fn describe(file: &File, owner: Owner, mode: u32, (seconds, nanos): (i64, i64)) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    fchmod(file, Mode::from_bits_truncate(mode & 0o7777))?;
    let time = TimeSpec::new(seconds, nanos);
    Ok(futimens(file, &time, &time)?)
}

/// Names in an open folder, sorted, without `.` and `..`.
pub fn names(mut dir: Dir) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Names in the folder of a root that a path leads to, sorted.
pub fn list(root: &Root, path: &Path) -> io::Result<Vec<OsString>> {
    let fd = root.lookup(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
    names(Dir::from_fd(fd)?)
}

fn must_be_readable(stat: &FileStat) -> io::Result<()> {
    match is_file(stat) || is_dir(stat) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

pub fn is_dir(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFDIR
}

pub fn is_file(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFREG
}

/// A path relative to the root, without `.`, `..` (which stop at the root) and doubled slashes.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The whole content of a file in a root, at most `limit` bytes.
pub fn read_limited(root: &Root, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut file = root.read(path)?;
    if !is_file(&fstat(file.as_fd())?) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut content = Vec::new();
    file.by_ref().take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "file is too large"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let temp = tempfile::tempdir().expect("temp folder");
        std::fs::create_dir(temp.path().join("etc")).expect("folder");
        std::fs::write(temp.path().join("etc/x"), "inside").expect("file");
        symlink("/etc", temp.path().join("abs")).expect("link");
        symlink("../../../../etc", temp.path().join("up")).expect("link");
        let root = Root::open(temp.path()).expect("root");
        for path in ["abs/x", "up/x", "/etc/x", "../../etc/x"] {
            assert_eq!(read_limited(&root, Path::new(path), 100).expect(path), b"inside");
        }
        assert!(root.stat(Path::new("abs/passwd")).is_err());
    }

    #[test]
    fn only_files_and_folders_are_read() {
        let temp = tempfile::tempdir().expect("temp folder");
        let root = Root::open(temp.path()).expect("root");
        let place = |name: &str| root.place(Path::new(name)).expect("a place");
        place("zero").device(false, (1, 5)).expect("a device");
        place("pipe").fifo().expect("a pipe");
        symlink("zero", temp.path().join("link")).expect("link");
        for name in ["zero", "pipe", "link"] {
            let error = root.read(Path::new(name)).expect_err(name);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
        assert!(place("zero").read().is_err() && place("pipe").read().is_err());
        assert!(root.read(Path::new("/")).is_ok());
    }

    #[test]
    fn folders_are_made_through_links() {
        let temp = tempfile::tempdir().expect("temp folder");
        symlink("/real", temp.path().join("link")).expect("link");
        let root = Root::open(temp.path()).expect("root");
        assert!(root.make_dirs(Path::new("link/a/b")).expect("made"));
        assert!(!root.make_dirs(Path::new("/link/a/b")).expect("there"));
        assert!(temp.path().join("real/a/b").is_dir());
        std::fs::write(temp.path().join("file"), "").expect("file");
        let error = root.make_dirs(Path::new("file/a")).expect_err("not a folder");
        assert_eq!(error.raw_os_error(), Some(libc_enotdir()));
    }

    fn libc_enotdir() -> i32 {
        Errno::ENOTDIR as i32
    }

    #[test]
    fn a_name_replaces_what_bore_it() {
        let temp = tempfile::tempdir().expect("temp folder");
        std::fs::create_dir_all(temp.path().join("d/e")).expect("folders");
        std::fs::write(temp.path().join("d/e/f"), "x").expect("file");
        symlink("/nowhere", temp.path().join("d/l")).expect("link");
        let root = Root::open(temp.path()).expect("root");
        root.place(Path::new("d")).expect("place").create().expect("file");
        assert!(temp.path().join("d").is_file());
    }

    #[test]
    fn cleaning() {
        for (path, expected) in [("/a/../../b/./c", "b/c"), ("", ""), ("/", ""), ("..", ""), ("a//b/", "a/b")] {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
