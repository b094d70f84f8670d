use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use model::DiffId;
use nix::fcntl::OFlag;
use tar::{Builder, EntryType, Header};
use xattr::FileExt as _;

use crate::changes::Below;
use crate::root::Root;
use crate::walk::{pinned, walk, walk_in};
use crate::{Error, Snapshots, whiteout};

/// What no longer fits into a header's octal fields.
const MAX_HEADER_BYTES: u64 = 1 << 33;
const MAX_HEADER_ID: u64 = 1 << 21;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiffStat {
    /// Sum of the sizes of the files in the tar, as Docker counts an image's size.
    pub content_bytes: u64,
    /// Nothing was changed; the tar has no entries.
    pub empty: bool,
}

impl Snapshots {
    /// Writes what `upper` changed against the stack `lowers` (base first) as a layer's tar: names in order, whole
    /// seconds, numbers instead of user names, so that the same tree gives the same bytes.
    ///
    /// # Errors
    /// `NotFound` when a lower layer is not unpacked here.
    pub fn diff(&self, upper: &Path, lowers: &[DiffId], out: impl Write) -> Result<DiffStat, Error> {
        let below = Below::new(self, lowers)?;
        let mut packer = Packer::new(out);
        let mut empty = true;
        walk(upper, &mut |node| {
            empty = false;
            let full = &node.full;
            if whiteout::is_whiteout(&node.metadata) {
                return packer.empty_file(&beside(&node.path, whiteout::PREFIX), &node.metadata);
            }
            packer.node(&node.path, full, &node.metadata)?;
            if node.metadata.is_dir()
                && whiteout::is_opaque(full).map_err(Error::io("reading attributes of", &node.path))?
                && below.has(&node.path)?
            {
                packer.empty_file(&node.path.join(whiteout::OPAQUE_ENTRY), &node.metadata)?;
            }
            Ok(())
        })?;
        let content_bytes = packer.finish()?;
        Ok(DiffStat { content_bytes, empty })
    }
}

/// Writes a whole mounted tree as a tar (`docker export`).
///
/// # Errors
/// `Internal` when the tree cannot be read or `out` cannot be written.
pub fn export(tree: &Path, out: impl Write) -> Result<(), Error> {
    let mut packer = Packer::new(out);
    walk(tree, &mut |node| packer.node(&node.path, &node.full, &node.metadata))?;
    packer.finish().map(drop)
}

/// Writes several whole mounted trees as one tar, each in a folder of the name beside it; an empty name is the top. With
/// `time`, in seconds, every entry has that one.
///
/// # Errors
/// As [`export`].
pub fn export_all(trees: &[(PathBuf, PathBuf)], time: Option<i64>, out: impl Write) -> Result<(), Error> {
    let mut packer = Packer { time: time.map(|seconds| u64::try_from(seconds).unwrap_or(0)), ..Packer::new(out) };
    for (name, tree) in trees {
        // A file of two trees stays two files.
        packer.links.clear();
        if !name.as_os_str().is_empty() {
            let metadata = fs::symlink_metadata(tree).map_err(Error::io("reading", tree))?;
            packer.node(name, tree, &metadata)?;
        }
        walk(tree, &mut |node| packer.node(&name.join(&node.path), &node.full, &node.metadata))?;
    }
    packer.finish().map(drop)
}

/// Writes `path` of the hostile tree `root`, itself and all below, as a tar whose top entry is called `name`
/// (`docker cp`). Links on the way to `path` are resolved inside `root`; `path` itself is not followed.
///
/// # Errors
/// `NotFound` when there is no such path.
pub fn pack(root: &Path, path: &Path, name: &Path, out: impl Write) -> Result<(), Error> {
    let inside = Root::open(root)?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    let (parent, last) = match (relative.parent(), relative.file_name()) {
        (Some(parent), Some(last)) => (parent, Some(last)),
        _ => (Path::new(""), None),
    };
    let parent = inside.dir(parent).map_err(|_| Error::NoPath(path.to_owned()))?;
    let full = pinned(&parent).join(last.unwrap_or(OsStr::new(".")));
    let metadata = fs::symlink_metadata(&full).map_err(|_| Error::NoPath(path.to_owned()))?;
    let mut packer = Packer::new(out);
    packer.node(name, &full, &metadata)?;
    if metadata.is_dir() {
        let folder = inside
            .open_at(relative, OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_NOFOLLOW)
            .map_err(Error::sys("opening", path))?;
        walk_in(&Root::of(folder), &mut |node| packer.node(&name.join(&node.path), &node.full, &node.metadata))?;
    }
    packer.finish().map(drop)
}

/// `a/b` → `a/.wh.b`
pub(crate) fn beside(path: &Path, prefix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(prefix);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

pub(crate) struct Packer<W: Write> {
    tar: Builder<W>,
    /// Where the first name of a file with several was written.
    links: HashMap<(u64, u64), PathBuf>,
    content_bytes: u64,
    /// Of every entry, instead of its own.
    time: Option<u64>,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { tar: Builder::new(out), links: HashMap::new(), content_bytes: 0, time: None }
    }

    pub(crate) fn finish(self) -> Result<u64, Error> {
        let mut out = self.tar.into_inner().map_err(Error::Write)?;
        out.flush().map_err(Error::Write)?;
        Ok(self.content_bytes)
    }

    pub(crate) fn empty_file(&mut self, name: &Path, like: &Metadata) -> Result<(), Error> {
        let entry = Entry { name, link: None, size: 0, xattrs: Vec::new() };
        let mut header = header(EntryType::Regular, like);
        header.set_mode(0o600);
        self.append(header, entry, io::empty())
    }

    /// A whiteout of nobody in particular, without a time.
    pub(crate) fn whiteout(&mut self, name: &Path) -> Result<(), Error> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.append(header, Entry { name, link: None, size: 0, xattrs: Vec::new() }, io::empty())
    }

    pub(crate) fn node(&mut self, name: &Path, full: &Path, metadata: &Metadata) -> Result<(), Error> {
        let kind = metadata.file_type();
        let reading = |error| Error::io("reading", full)(error);
        let mut entry = Entry { name, link: None, size: 0, xattrs: Vec::new() };
        if kind.is_dir() {
            entry.xattrs = xattrs(full, xattr::list(full))?;
            return self.append(header(EntryType::Directory, metadata), entry, io::empty());
        }
        if kind.is_symlink() {
            self.content_bytes = self.content_bytes.saturating_add(metadata.len());
            entry.link = Some(fs::read_link(full).map_err(reading)?);
            return self.append(header(EntryType::Symlink, metadata), entry, io::empty());
        }
        if kind.is_socket() {
            // A socket means nothing without the process that listens on it; Docker leaves it out too.
            return Ok(());
        }
        if metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                entry.link = Some(first.clone());
                return self.append(header(EntryType::Link, metadata), entry, io::empty());
            }
            self.links.insert(key, name.to_owned());
        }
        if kind.is_file() {
            entry.size = metadata.len();
            let file = open_file(full).map_err(reading)?;
            entry.xattrs = xattrs(full, file.list_xattr())?;
            self.content_bytes = self.content_bytes.saturating_add(metadata.len());
            // Exactly the size that the header says, also when the file grows or shrinks meanwhile.
            let content = file.chain(io::repeat(0)).take(metadata.len());
            return self.append(header(EntryType::Regular, metadata), entry, content);
        }
        let device = if kind.is_fifo() {
            EntryType::Fifo
        } else if kind.is_char_device() {
            EntryType::Char
        } else {
            EntryType::Block
        };
        let mut header = header(device, metadata);
        if !kind.is_fifo() {
            let too_large = |_| Error::Write(io::Error::other("device number too large"));
            let number = |n: u64| u32::try_from(n).map_err(too_large);
            let rdev = metadata.rdev();
            header.set_device_major(number(nix::sys::stat::major(rdev))?).map_err(Error::Write)?;
            header.set_device_minor(number(nix::sys::stat::minor(rdev))?).map_err(Error::Write)?;
        }
        self.append(header, entry, io::empty())
    }

    /// Writes one entry; what does not fit into the header goes before it as pax records (POSIX.1-2001).
    fn append(&mut self, mut header: Header, entry: Entry<'_>, content: impl Read) -> Result<(), Error> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let mut name = entry.name.as_os_str().as_bytes().to_vec();
        if header.entry_type().is_dir() && !name.ends_with(b"/") {
            name.push(b'/');
        }
        if !put(&mut header.as_mut_bytes()[0..100], &name) {
            records.push(("path".to_owned(), name));
        }
        if let Some(link) = entry.link {
            let link = link.as_os_str().as_bytes();
            if !put(&mut header.as_mut_bytes()[157..257], link) {
                records.push(("linkpath".to_owned(), link.to_vec()));
            }
        }
        if entry.size >= MAX_HEADER_BYTES {
            records.push(("size".to_owned(), entry.size.to_string().into_bytes()));
        }
        if let Some(time) = self.time {
            header.set_mtime(time);
        }
        header.set_size(entry.size);
        for (key, value) in [("uid", header.uid()), ("gid", header.gid())] {
            let value = value.map_err(Error::Write)?;
            if value >= MAX_HEADER_ID {
                records.push((key.to_owned(), value.to_string().into_bytes()));
            }
        }
        for (name, value) in entry.xattrs {
            records.push((format!("SCHILY.xattr.{name}"), value));
        }
        header.set_cksum();
        let written = if records.is_empty() {
            Ok(())
        } else {
            self.tar.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
        };
        written.and_then(|()| self.tar.append(&header, content)).map_err(Error::Write)
    }
}

struct Entry<'a> {
    name: &'a Path,
    link: Option<PathBuf>,
    size: u64,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// Fills a header's field; false when the value needs a pax record. Cut short it is still of help to a reader without pax.
fn put(field: &mut [u8], value: &[u8]) -> bool {
    let fits = value.len() <= field.len() && value.is_ascii();
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
    fits
}

fn header(kind: EntryType, metadata: &Metadata) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(u64::from(metadata.uid()));
    header.set_gid(u64::from(metadata.gid()));
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header
}

fn open_file(path: &Path) -> io::Result<File> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

/// The attributes of a path that a layer keeps, of those that it has.
fn xattrs(path: &Path, listed: io::Result<xattr::XAttrs>) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let reading = |error| Error::io("reading attributes of", path)(error);
    let mut found = Vec::new();
    let names = match listed {
        Ok(names) => names,
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EOPNOTSUPP as i32) => return Ok(found),
        Err(error) => return Err(reading(error)),
    };
    for name in names {
        if let Some(text) = name.to_str()
            && whiteout::is_portable_xattr(text)
            && let Some(value) = xattr::get(path, &name).map_err(reading)?
        {
            found.push((text.to_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}
