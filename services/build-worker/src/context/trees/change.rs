//! A folder that holds one tree is made to hold another.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contexts::{Entry, Kind, Tree};
use distribution::Store;

use super::contents;
use super::difference::difference;
use crate::failure::{Doing as _, Failure};
use crate::halt;
use crate::layers::blocking;
use crate::rooted::{Owner, Place, Root};

const SECOND_NS: i64 = 1_000_000_000;

/// On failure the folder holds something in between.
pub async fn change(store: &Store, folder: &Path, old: Arc<Tree>, new: Arc<Tree>) -> Result<(), Failure> {
    let (folder, tree) = (folder.to_owned(), new.clone());
    let (changed, wanted) =
        blocking(move || prepare(&folder, &old, &tree).doing(|| "unpacking the context".to_owned()))
            .await
            .map(|changed| (changed.clone(), changed))?;
    contents::write(store, &new, &wanted).await?;
    blocking(move || finish(&changed, &new).doing(|| "unpacking the context".to_owned())).await
}

/// What is left to do once folders and links stand.
#[derive(Debug, Clone)]
pub struct Changed {
    pub folder: PathBuf,
    /// Positions of files whose content is to be written.
    pub files: Vec<usize>,
    hard_links: Vec<usize>,
    /// Positions of entries whose metadata is to be set, and of folders in which something has changed; whether they are
    /// new, without owner and attributes of an earlier one.
    described: BTreeMap<usize, bool>,
}

/// Names in the folder of a tree. Entries come in order, so most are in the folder of the one before.
pub struct Names {
    root: Root,
    last: Option<(PathBuf, Arc<OwnedFd>)>,
}

impl Names {
    pub fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { root: Root::open(folder)?, last: None })
    }

    pub fn place(&mut self, path: &str) -> io::Result<Place> {
        let path = Path::new(path);
        let name = path.file_name().unwrap_or(OsStr::new("")).to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        if let Some((folder, dir)) = &self.last
            && folder == parent
        {
            return Ok(Place { dir: dir.clone(), name });
        }
        let dir = Arc::new(self.root.dir(parent)?);
        self.last = Some((parent.to_owned(), dir.clone()));
        Ok(Place { dir, name })
    }
}

fn prepare(folder: &Path, old: &Tree, new: &Tree) -> io::Result<Changed> {
    let found = difference(old, new);
    let mut names = Names::open(folder)?;
    let mut touched = BTreeSet::new();
    for path in &found.removed {
        halt::check()?;
        names.place(path)?.remove()?;
        touched.extend(parent_of(path));
    }
    let mut changed = Changed {
        folder: folder.to_owned(),
        files: Vec::new(),
        hard_links: Vec::new(),
        described: found.described.iter().map(|at| (*at, false)).collect(),
    };
    // A folder that was removed may be one that is kept open.
    names.last = None;
    for at in found.made {
        halt::check()?;
        let entry = &new.entries[at];
        touched.extend(parent_of(&entry.path));
        match &entry.kind {
            Kind::File { hard_link: Some(_), .. } => changed.hard_links.push(at),
            Kind::File { .. } => {
                changed.files.push(at);
                if !is_told_with_content(entry) {
                    changed.described.insert(at, true);
                }
            }
            _ => {
                make(&names.place(&entry.path)?, &entry.kind)?;
                changed.described.insert(at, true);
            }
        }
    }
    for at in touched.iter().filter_map(|path| position(new, path)) {
        changed.described.entry(at).or_insert(false);
    }
    Ok(changed)
}

fn parent_of(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(parent, _)| parent.to_owned())
}

fn position(tree: &Tree, path: &str) -> Option<usize> {
    tree.entries.binary_search_by(|entry| contexts::by_components(&entry.path, path)).ok()
}

fn make(place: &Place, kind: &Kind) -> io::Result<()> {
    match kind {
        Kind::Folder => place.make_dir(0o700),
        Kind::Symlink { target } => place.symlink(OsStr::new(target)),
        Kind::Fifo => place.fifo(),
        Kind::Character { major, minor } => place.device(false, (*major, *minor)),
        Kind::Block { major, minor } => place.device(true, (*major, *minor)),
        Kind::File { .. } => Ok(()),
    }
}

/// Links files that are one, and sets all metadata; that of folders last and from below, since their times change with
/// what is made in them.
fn finish(changed: &Changed, tree: &Tree) -> io::Result<()> {
    let (mut names, mut firsts) = (Names::open(&changed.folder)?, Names::open(&changed.folder)?);
    for at in &changed.hard_links {
        halt::check()?;
        let entry = &tree.entries[*at];
        if let Kind::File { hard_link: Some(first), .. } = &entry.kind {
            names.place(&entry.path)?.hard_link(&firsts.place(first)?)?;
        }
    }
    for (at, is_new) in changed.described.iter().rev() {
        halt::check()?;
        let entry = &tree.entries[*at];
        describe(&names.place(&entry.path)?, entry, *is_new)?;
    }
    Ok(())
}

fn describe(place: &Place, entry: &Entry, is_new: bool) -> io::Result<()> {
    let owner = Owner { uid: entry.uid, gid: entry.gid };
    if !is_new || owner != Owner::ROOT {
        place.set_owner(owner)?;
    }
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        place.set_mode(entry.mode)?;
    }
    if !is_new || !entry.xattrs.is_empty() {
        set_xattrs(place, entry)?;
    }
    let (seconds, nanos) = split(entry.mtime_ns);
    place.set_times(seconds, nanos)
}

/// A time since 1970 in seconds and nanoseconds.
pub fn split(time_ns: i64) -> (i64, i64) {
    (time_ns.div_euclid(SECOND_NS), time_ns.rem_euclid(SECOND_NS))
}

/// Whether a file is whole once its content is written, since it is root's and has no attributes.
fn is_told_with_content(entry: &Entry) -> bool {
    let has_content = matches!(&entry.kind, Kind::File { content, .. } if content.pack.is_some());
    has_content && entry.xattrs.is_empty() && (entry.uid, entry.gid) == (0, 0)
}

fn set_xattrs(place: &Place, entry: &Entry) -> io::Result<()> {
    if !matches!(entry.kind, Kind::File { .. } | Kind::Folder) {
        return Ok(());
    }
    let file = place.read()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // Attributes that an earlier tree had go; others, as a security module's labels, are not the client's.
    for name in xattr::list(&path)?.filter(|name| name.to_str().is_some_and(snapshots::is_portable_xattr)) {
        if !entry.xattrs.iter().any(|(wanted, _)| name == wanted.as_str()) {
            xattr::remove(&path, &name)?;
        }
    }
    for (name, value) in &entry.xattrs {
        match xattr::set(&path, name, value) {
            // The file system or the kernel knows none of that kind.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EOPNOTSUPP as i32) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use contexts::Content;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn entry(path: &str, mode: u32, mtime_ns: i64, kind: Kind) -> Entry {
        // Owners stay as they are, so that the test needs no rights.
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        Entry { path: path.to_owned(), mode, uid, gid, mtime_ns, xattrs: Vec::new(), kind }
    }

    fn file(hard_link: Option<&str>) -> Kind {
        let content = Content { sha256: Sha256::digest(b"").into(), size: 0, pack: None, offset: 0 };
        Kind::File { content, hard_link: hard_link.map(str::to_owned) }
    }

    fn lay_out(folder: &Path, old: &Tree, new: &Tree) {
        let changed = prepare(folder, old, new).expect("prepared");
        let mut names = Names::open(folder).expect("opened");
        for at in &changed.files {
            names.place(&new.entries[*at].path).expect("a place").create().expect("made");
        }
        finish(&changed, new).expect("finished");
    }

    #[test]
    fn a_folder_goes_from_one_tree_to_the_next() {
        let temp = tempfile::tempdir().expect("temp folder");
        let outside = temp.path().join("outside");
        std::fs::write(&outside, "mine").expect("file");
        let folder = temp.path().join("folder");
        std::fs::create_dir(&folder).expect("folder");
        let link = Kind::Symlink { target: outside.display().to_string() };
        let first = Tree {
            entries: vec![
                entry("d", 0o711, 5, Kind::Folder),
                entry("d/a", 0o600, -1, file(None)),
                entry("d/b", 0o600, -1, file(Some("d/a"))),
                entry("l", 0o777, 7_000_000_001, link),
                entry("p", 0o600, 1, Kind::Fifo),
            ],
            ..Tree::default()
        };
        lay_out(&folder, &Tree::default(), &first);
        let stat = |path: &str| std::fs::symlink_metadata(folder.join(path)).expect("there");
        assert_eq!((stat("d").mode() & 0o7777, stat("d").mtime(), stat("d").mtime_nsec()), (0o711, 0, 5));
        assert_eq!((stat("d/a").mtime(), stat("d/a").mtime_nsec()), (-1, 999_999_999));
        assert_eq!((stat("d/a").ino(), stat("d/a").nlink()), (stat("d/b").ino(), 2));
        assert_eq!((stat("l").mtime(), stat("l").mtime_nsec()), (7, 1));
        let second = Tree {
            entries: vec![
                entry("d", 0o711, 5, Kind::Folder),
                entry("d/a", 0o640, -1, file(None)),
                entry("l", 0o600, 9, file(None)),
                entry("p", 0o700, 3, Kind::Folder),
                entry("p/x", 0o600, 3, file(None)),
            ],
            ..Tree::default()
        };
        lay_out(&folder, &first, &second);
        assert_eq!(std::fs::read_to_string(&outside).expect("there"), "mine", "no link is followed");
        assert!(stat("l").is_file() && stat("p/x").is_file() && !folder.join("d/b").exists());
        assert_eq!((stat("d/a").mode() & 0o7777, stat("d").mtime_nsec(), stat("p").mtime_nsec()), (0o640, 5, 3));
        lay_out(&folder, &second, &Tree::default());
        assert_eq!(std::fs::read_dir(&folder).expect("list").count(), 0);
    }
}
