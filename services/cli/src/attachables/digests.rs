//! SHA-256 of files, remembered between builds by what changes with a file: size, times and inode. With them the daemon
//! takes content that it has from its store, whatever the file is called now.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

/// Tells the daemon that our Stats say digests.
pub const METHOD: &str = "/boxyard.v1.files/digests";
/// A file that has changed so short a time ago may change once more without its times telling.
const SETTLED_NS: i64 = 1_000_000_000;
const HEAD: &str = "boxyard digests 1";

/// The remembered digests of one folder.
pub struct Digests {
    /// Where they are kept; none: nowhere.
    file: Option<PathBuf>,
    old: HashMap<String, (Sign, [u8; 32])>,
    new: Vec<(String, Sign, [u8; 32])>,
    changed: bool,
    now_ns: i64,
}

/// Stays the same as long as a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sign {
    size: u64,
    inode: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

impl From<&Metadata> for Sign {
    fn from(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            size: metadata.size(),
            inode: metadata.ino(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Digests {
    /// What is remembered of a folder. A file that cannot be read is as if nothing were.
    pub fn open(root: &Path) -> Self {
        let file = place(root);
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        Self { file, old: read(&text), new: Vec::new(), changed: false, now_ns }
    }

    /// The digest of a file's content.
    pub fn of(&mut self, path: &str, full: &Path, metadata: &Metadata) -> io::Result<[u8; 32]> {
        let sign = Sign::from(metadata);
        let digest = match self.old.get(path).filter(|(known, _)| *known == sign) {
            Some((_, digest)) => *digest,
            None => {
                self.changed = true;
                hash(full)?
            }
        };
        // One that changes just now, or has a time in the future, is read again the next time.
        if sign.ctime_ns.max(sign.mtime_ns) < self.now_ns - SETTLED_NS {
            self.new.push((path.to_owned(), sign, digest));
        }
        Ok(digest)
    }

    /// Remembers what was asked for. A cache that cannot be written costs time, nothing else.
    pub fn save(self) {
        let Some(file) = self.file.filter(|_| self.changed || self.new.len() != self.old.len()) else { return };
        let mut text = HEAD.to_owned();
        for (path, Sign { size, inode, mtime_ns, ctime_ns }, digest) in &self.new {
            let digest = hex::encode(digest);
            text.push_str(&format!("\0{digest} {size} {inode} {mtime_ns} {ctime_ns} {path}"));
        }
        let _ = write(&file, &text);
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::NotFound)?;
    std::fs::create_dir_all(folder)?;
    let draft = file.with_extension(format!("{:016x}", rand::random::<u64>()));
    let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}

fn read(text: &str) -> HashMap<String, (Sign, [u8; 32])> {
    let mut lines = text.split('\0');
    if lines.next() != Some(HEAD) {
        return HashMap::new();
    }
    lines.filter_map(line).collect()
}

fn line(text: &str) -> Option<(String, (Sign, [u8; 32]))> {
    let mut parts = text.splitn(6, ' ');
    let mut digest = [0; 32];
    hex::decode_to_slice(parts.next()?, &mut digest).ok()?;
    let sign = Sign {
        size: parts.next()?.parse().ok()?,
        inode: parts.next()?.parse().ok()?,
        mtime_ns: parts.next()?.parse().ok()?,
        ctime_ns: parts.next()?.parse().ok()?,
    };
    Some((parts.next()?.to_owned(), (sign, digest)))
}

fn hash(full: &Path) -> io::Result<[u8; 32]> {
    let mut file = std::fs::File::open(full)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// The cache folder of the person, by the XDG base directory specification.
fn place(root: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    let name = hex::encode(Sha256::digest(root.as_os_str().as_bytes()));
    Some(caches.join("boxyard/digests").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, full) = (folder.path().join("cache"), folder.path().join("x"));
        std::fs::write(&full, "one").expect("written");
        let open = |now_ns: i64| {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            Digests { file: Some(file.clone()), old: read(&text), new: Vec::new(), changed: false, now_ns }
        };
        let metadata = full.metadata().expect("metadata");
        let mut first = open(i64::MAX);
        let digest = first.of("a b", &full, &metadata).expect("hashed");
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(b"one")));
        first.save();
        std::fs::write(&full, "two").expect("written");
        let mut second = open(i64::MAX);
        assert_eq!(second.of("a b", &full, &metadata).expect("remembered"), digest, "by the same metadata");
        let changed = full.metadata().expect("metadata");
        assert_eq!(second.of("other", &full, &changed).expect("hashed"), <[u8; 32]>::from(Sha256::digest(b"two")));
        let mut fresh = open(Sign::from(&changed).ctime_ns);
        fresh.of("a b", &full, &changed).expect("hashed");
        assert!(fresh.new.is_empty(), "what has just changed is not remembered");
    }
}
