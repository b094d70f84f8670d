//! What lies in a cache's folder. A file that looks as it did the last time is not read again.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use contexts::{Content, Entry, Kind};
use nix::sys::stat::{FileStat, SFlag, fstat, major, minor};

use super::files::Files;
use crate::context::trees::change::Names;
use crate::copy::hash;
use crate::halt;
use crate::layers::now_ns;
use crate::rooted::{Place, Root, kind};

/// The folder that a step has mounted, beside which the slot's own files lie.
pub const ROOT: &str = "root";
/// A change within this time of a look could have the same time as what was looked at.
const TICK_NS: i64 = 20_000_000;
/// Each level keeps its folder open.
const MAX_DEPTH: usize = 128;
const MAX_PATH_BYTES: usize = 4095;
const SECOND_NS: i64 = 1_000_000_000;

/// How a file looked: every change of it changes one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: i64,
    modified_ns: i64,
    changed_ns: i64,
}

/// Files that were read, by path.
#[derive(Debug, Default)]
pub struct Index {
    /// How those looked that stand among `files`.
    seen: HashMap<String, Seen>,
    files: Arc<Files>,
    taken_ns: i64,
}

/// What was found.
#[derive(Debug)]
pub struct Scanned {
    pub files: Arc<Files>,
    pub index: Index,
    /// Names that are no UTF-8, and what lies too deep: they stay on this worker.
    pub left_out: usize,
}

impl Seen {
    fn of(stat: &FileStat) -> Self {
        let ns = |seconds: i64, nanos: i64| seconds.saturating_mul(SECOND_NS).saturating_add(nanos);
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            modified_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
            changed_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl Index {
    /// Files that were just written into a folder, which nobody uses.
    pub fn of(folder: &Path, files: &Arc<Files>) -> io::Result<Self> {
        let mut index = Self { seen: HashMap::new(), files: files.clone(), taken_ns: now_ns() };
        let mut names = Names::open(folder)?;
        for (path, entry) in &files.0 {
            halt::check()?;
            if matches!(entry.kind, Kind::File { .. })
                && let Some(stat) = names.place(path)?.stat()?
            {
                index.seen.insert(path.clone(), Seen::of(&stat));
            }
        }
        Ok(index)
    }

    fn find(&self, path: &str, seen: Seen) -> Option<&Entry> {
        let is_old = seen.changed_ns < self.taken_ns - TICK_NS;
        let is_same = is_old && self.seen.get(path).is_some_and(|known| *known == seen);
        is_same.then(|| self.files.0.get(path)).flatten()
    }
}

/// Looks at a slot's folder. What is removed meanwhile is not there; links are not followed. Blocks.
pub fn scan(folder: &Path, index: &Index) -> io::Result<Scanned> {
    let taken_ns = now_ns();
    let (files, seen, firsts) = (Files::default(), HashMap::new(), HashMap::new());
    let mut scan = Scan { known: index, files, seen, left_out: 0, firsts };
    scan.visit(&Root::open(folder)?.place(Path::new(ROOT))?, ROOT.to_owned(), 0)?;
    let Scan { files, seen, left_out, .. } = scan;
    let files = Arc::new(files);
    Ok(Scanned { files: files.clone(), index: Index { seen, files, taken_ns }, left_out })
}

struct Scan<'a> {
    known: &'a Index,
    files: Files,
    seen: HashMap<String, Seen>,
    left_out: usize,
    /// Files with several names, by inode: the first of them.
    firsts: HashMap<u64, String>,
}

impl Scan<'_> {
    fn visit(&mut self, place: &Place, path: String, depth: usize) -> io::Result<()> {
        halt::check()?;
        let Some(stat) = place.stat()? else { return Ok(()) };
        let device = || (u32::try_from(major(stat.st_rdev)), u32::try_from(minor(stat.st_rdev)));
        let kind = match kind(&stat) {
            SFlag::S_IFREG => return self.file(place, path, &stat),
            SFlag::S_IFDIR => Kind::Folder,
            SFlag::S_IFLNK => match present(place.read_link())?.map(std::ffi::OsString::into_string) {
                None => return Ok(()),
                Some(Ok(target)) => Kind::Symlink { target },
                Some(Err(_)) => return self.leave_out(),
            },
            SFlag::S_IFIFO => Kind::Fifo,
            other => match (other, device()) {
                (SFlag::S_IFCHR, (Ok(major), Ok(minor))) => Kind::Character { major, minor },
                (SFlag::S_IFBLK, (Ok(major), Ok(minor))) => Kind::Block { major, minor },
                // A socket is nobody's once its process has ended.
                _ => return Ok(()),
            },
        };
        let is_folder = kind == Kind::Folder;
        let xattrs = match is_folder {
            true => present(place.read().and_then(|folder| hash::xattrs(&folder, snapshots::is_portable_xattr)))?
                .unwrap_or_default(),
            false => Vec::new(),
        };
        self.files.0.insert(path.clone(), entry(path.clone(), &stat, xattrs, kind));
        if !is_folder {
            return Ok(());
        }
        for child in present(place.children())?.unwrap_or_default() {
            match child.name.to_str() {
                Some(name) if depth < MAX_DEPTH && path.len() + 1 + name.len() <= MAX_PATH_BYTES => {
                    self.visit(&child, format!("{path}/{name}"), depth + 1)?;
                }
                _ => self.leave_out()?,
            }
        }
        Ok(())
    }

    fn leave_out(&mut self) -> io::Result<()> {
        self.left_out += 1;
        Ok(())
    }

    fn file(&mut self, place: &Place, path: String, stat: &FileStat) -> io::Result<()> {
        let has_names = stat.st_nlink > 1;
        if has_names && let Some(first) = self.firsts.get(&stat.st_ino) {
            let mut linked = self.files.0[first].clone();
            linked.path.clone_from(&path);
            if let Kind::File { hard_link, .. } = &mut linked.kind {
                *hard_link = Some(first.clone());
            }
            self.files.0.insert(path, linked);
            return Ok(());
        }
        let mut seen = Some(Seen::of(stat));
        let made = match self.known.find(&path, Seen::of(stat)) {
            Some(known) => {
                let mut known = known.clone();
                if let Kind::File { hard_link, .. } = &mut known.kind {
                    *hard_link = None;
                }
                known
            }
            None => {
                let Some((content, xattrs, after)) = present(read(place))? else { return Ok(()) };
                // Else somebody writes to it: the next look reads it again.
                seen = seen.filter(|before| *before == Seen::of(&after));
                entry(path.clone(), &after, xattrs, Kind::File { content, hard_link: None })
            }
        };
        if let Some(seen) = seen {
            self.seen.insert(path.clone(), seen);
        }
        if has_names {
            self.firsts.insert(stat.st_ino, path.clone());
        }
        self.files.0.insert(path, made);
        Ok(())
    }
}

type Read = (Content, Vec<(String, Vec<u8>)>, FileStat);

fn read(place: &Place) -> io::Result<Read> {
    let mut file = place.read()?;
    let (sha256, size) = hash::content(&mut file)?;
    let after = fstat(file.as_fd())?;
    Ok((Content { sha256, size, pack: None, offset: 0 }, hash::xattrs(&file, snapshots::is_portable_xattr)?, after))
}

fn entry(path: String, stat: &FileStat, xattrs: Vec<(String, Vec<u8>)>, kind: Kind) -> Entry {
    let mtime_ns = Seen::of(stat).modified_ns;
    Entry { path, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime_ns, xattrs, kind }
}

/// None for what is gone, or is another thing than a moment ago.
fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    use nix::errno::Errno;
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_look_finds_what_changed_and_nothing_outside() {
        let temp = tempfile::tempdir().expect("temp folder");
        let root = temp.path().join(ROOT);
        std::fs::create_dir_all(root.join("d")).expect("folder");
        std::fs::write(root.join("d/a"), "one").expect("file");
        std::fs::hard_link(root.join("d/a"), root.join("d/b")).expect("link");
        std::os::unix::fs::symlink("/etc", root.join("l")).expect("link");
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "x").expect("file");
        let first = scan(temp.path(), &Index::default()).expect("scanned");
        let paths: Vec<&str> = first.files.0.keys().map(String::as_str).collect();
        assert_eq!((paths, first.left_out), (vec!["root", "root/d", "root/d/a", "root/d/b", "root/l"], 1));
        let linked = |scanned: &Scanned| match &scanned.files.0["root/d/b"].kind {
            Kind::File { hard_link, .. } => hard_link.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(linked(&first).as_deref(), Some("root/d/a"));
        let again = scan(temp.path(), &first.index).expect("scanned");
        assert_eq!(again.files, first.files);
        // The same size and time of change, as tools leave it that copy times.
        let before = std::fs::metadata(root.join("d/a")).expect("stat").modified().expect("time");
        std::fs::write(root.join("d/a"), "two").expect("file");
        std::fs::File::options().write(true).open(root.join("d/a")).expect("open").set_modified(before).expect("set");
        let changed = scan(temp.path(), &again.index).expect("scanned");
        assert_ne!(changed.files.0["root/d/a"].kind, first.files.0["root/d/a"].kind);
    }
}
