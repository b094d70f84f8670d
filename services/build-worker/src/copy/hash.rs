//! The digest of what a source holds: a step's cache key depends on it. Times do not count, names and modes do. The same
//! files have the same digest, however they came: in a folder ([`of`]) or as a client's tree ([`Counted`] alone).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag, major, minor};
use sha2::{Digest as _, Sha256};
use xattr::FileExt as _;

use crate::halt;
use crate::rooted::{Owner, Place, Root, is_dir, is_file, kind};

/// What counts of a file, a folder or a link.
pub struct Counted<'a> {
    /// Below the source; empty for the source itself.
    pub name: &'a [u8],
    /// Permissions with set-uid, set-gid and sticky; a link's do not count.
    pub mode: u32,
    /// Where owners are kept.
    pub owner: Option<Owner>,
    pub what: What<'a>,
}

pub enum What<'a> {
    Folder,
    File {
        sha256: &'a [u8],
        /// By name; those that no copy keeps do not count.
        xattrs: &'a [(String, Vec<u8>)],
    },
    Link(&'a [u8]),
    Fifo,
    Device {
        block: bool,
        /// Major and minor.
        numbers: (u32, u32),
    },
    /// A socket, which is never copied.
    Other,
}

impl Counted<'_> {
    pub fn add_to(&self, hasher: &mut Sha256) {
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(self.name);
        let mode = if matches!(self.what, What::Link(_)) { 0o777 } else { self.mode & 0o7777 };
        part(&mode.to_be_bytes());
        if let Some(Owner { uid, gid }) = self.owner {
            part(&[uid.to_be_bytes(), gid.to_be_bytes()].concat());
        }
        match self.what {
            What::Folder => part(b"folder"),
            What::File { sha256, xattrs } => {
                part(b"file");
                part(sha256);
                for (name, value) in xattrs.iter().filter(|(name, _)| is_copied(name)) {
                    part(name.as_bytes());
                    part(value);
                }
            }
            What::Link(target) => {
                part(b"link");
                part(target);
            }
            What::Fifo => part(b"fifo"),
            What::Device { block, numbers: (major, minor) } => {
                part(if block { b"block" } else { b"character" });
                part(&[major.to_be_bytes(), minor.to_be_bytes()].concat());
            }
            What::Other => part(b"other"),
        }
    }
}

/// Whether an attribute goes with a file where it is copied: its rights by capability, and what users have noted on it.
pub fn is_copied(xattr: &str) -> bool {
    xattr == "security.capability" || xattr.starts_with("user.")
}

/// Whether owners count: they do where they are kept.
#[derive(Clone, Copy)]
pub struct Rules {
    pub owners: bool,
}

/// Says of a path in a folder, and whether it is a folder itself, that it does not count.
pub type LeavesOut<'a> = dyn Fn(&Path, bool) -> bool + 'a;

/// `file:<hex>` or `dir:<hex>` of what a path leads to.
pub fn of(root: &Root, path: &Path, rules: Rules) -> io::Result<String> {
    of_some(root, path, rules, &|_, _| false)
}

/// As [`of`], without what `leaves_out` says of a folder's content; it is asked of paths relative to the folder.
pub fn of_some(root: &Root, path: &Path, rules: Rules, leaves_out: &LeavesOut) -> io::Result<String> {
    let stat = root.stat(path)?;
    let mut hasher = Sha256::new();
    if is_dir(&stat) {
        let folder = Place { dir: root.dir(path)?.into(), name: ".".into() };
        inside(&folder, Path::new(""), &mut hasher, (rules, leaves_out))?;
        return Ok(format!("dir:{}", hex::encode(hasher.finalize())));
    }
    match is_file(&stat) {
        true => file(root.read(path)?, b"", &stat, rules, &mut hasher)?,
        false => Counted { name: b"", mode: stat.st_mode, owner: rules.owner(&stat), what: special(&stat) }
            .add_to(&mut hasher),
    }
    Ok(format!("file:{}", hex::encode(hasher.finalize())))
}

/// `file:<hex>` of content that lies in the Dockerfile itself.
pub fn of_text(name: &str, content: &str) -> String {
    format!("file:{}", hex::encode(Sha256::new().chain_update(name).chain_update([0]).chain_update(content).finalize()))
}

/// The hash of a source that keeps its name where it is copied into a folder, as all but folders do: of those only what they
/// hold is copied.
pub fn named(hash: String, name: &str) -> String {
    match hash.strip_prefix("file:") {
        // No text of a Dockerfile begins so, since its name is not empty.
        Some(content) => {
            let parts = Sha256::new().chain_update([0]).chain_update(name).chain_update([0]).chain_update(content);
            format!("file:{}", hex::encode(parts.finalize()))
        }
        None => hash,
    }
}

/// The hash that several sources have together; of one, it is its own.
pub fn together(hashes: &[String]) -> String {
    match hashes {
        [one] => one.clone(),
        many => format!("multi:{}", hex::encode(Sha256::digest(many.join(",")))),
    }
}

fn inside(
    folder: &Place,
    path: &Path,
    hasher: &mut Sha256,
    (rules, leaves_out): (Rules, &LeavesOut),
) -> io::Result<()> {
    for child in folder.children()? {
        halt::check()?;
        let Some(stat) = child.stat()? else { continue };
        let path = path.join(&child.name);
        if leaves_out(&path, is_dir(&stat)) {
            continue;
        }
        let name = path.as_os_str().as_bytes();
        let owner = rules.owner(&stat);
        let mut add = |what| Counted { name, mode: stat.st_mode, owner, what }.add_to(hasher);
        match kind(&stat) {
            SFlag::S_IFDIR => {
                add(What::Folder);
                inside(&child, &path, hasher, (rules, leaves_out))?;
            }
            SFlag::S_IFLNK => add(What::Link(child.read_link()?.as_bytes())),
            SFlag::S_IFREG => file(child.read()?, name, &stat, rules, hasher)?,
            _ => add(special(&stat)),
        }
    }
    Ok(())
}

fn special(stat: &FileStat) -> What<'static> {
    let numbers = || (major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32);
    match kind(stat) {
        SFlag::S_IFIFO => What::Fifo,
        kind @ (SFlag::S_IFCHR | SFlag::S_IFBLK) => What::Device { block: kind == SFlag::S_IFBLK, numbers: numbers() },
        _ => What::Other,
    }
}

fn file(mut file: File, name: &[u8], stat: &FileStat, rules: Rules, hasher: &mut Sha256) -> io::Result<()> {
    let (sha256, _) = content(&mut file)?;
    let what = What::File { sha256: &sha256, xattrs: &xattrs(&file, is_copied)? };
    Counted { name, mode: stat.st_mode, owner: rules.owner(stat), what }.add_to(hasher);
    Ok(())
}

/// SHA-256 and number of the bytes from here to the end.
pub fn content(file: &mut File) -> io::Result<([u8; 32], u64)> {
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 128 * 1024]);
    loop {
        halt::check()?;
        match file.read(&mut buffer)? {
            0 => return Ok((hash.finalize().into(), size)),
            length => {
                hash.update(&buffer[..length]);
                size += length as u64;
            }
        }
    }
}

/// The attributes of a file whose names are kept, by name.
pub fn xattrs(file: &File, is_kept: fn(&str) -> bool) -> io::Result<Vec<(String, Vec<u8>)>> {
    let names = match file.list_xattr() {
        Ok(names) => names,
        // A file system without attributes has none.
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names.filter_map(|name| name.into_string().ok()).filter(|name| is_kept(name)) {
        if let Some(value) = file.get_xattr(&name)? {
            xattrs.push((name, value));
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

impl Rules {
    fn owner(self, stat: &FileStat) -> Option<Owner> {
        self.owners.then_some(Owner { uid: stat.st_uid, gid: stat.st_gid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_hash() {
        let temp = tempfile::tempdir().expect("temp folder");
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir(at("d")).expect("folder");
        std::fs::write(at("d/x"), "1").expect("file");
        let root = Root::open(temp.path()).expect("root");
        let hash = |path: &str| of(&root, Path::new(path), Rules { owners: false }).expect("hash");
        let (file, dir) = (hash("d/x"), hash("d"));
        assert!(file.starts_with("file:") && dir.starts_with("dir:"));
        std::fs::File::options()
            .write(true)
            .open(at("d/x"))
            .and_then(|file| file.set_modified(std::time::UNIX_EPOCH))
            .expect("time");
        assert_eq!((hash("d/x"), hash("d")), (file.clone(), dir.clone()), "times do not count");
        std::fs::write(at("d/x"), "2").expect("file");
        assert_ne!(hash("d/x"), file);
        assert_ne!(hash("d"), dir);
        std::fs::write(at("d/x"), "1").expect("file");
        assert_eq!(hash("d"), dir);
        std::fs::write(at("d/y"), "").expect("file");
        assert_ne!(hash("d"), dir, "a new name counts");
        assert_ne!(named(file.clone(), "x"), named(file, "y"), "a file is copied by its name");
        assert_eq!(named(dir.clone(), "d"), named(dir, "e"), "a folder is not");
    }
}
