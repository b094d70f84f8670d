//! SHA-256 of files, remembered between builds by what changes with a file: size, times and inode. With them the daemon
//! takes content that it has from its store, whatever the file is called now.

use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use contexts::by_components;
use sha2::{Digest as _, Sha256};

use super::walk::Found;

/// Tells the daemon that our Stats say digests.
pub const METHOD: &str = "/boxyard.v1.files/digests";
/// A file that has changed so short a time ago may change once more without its times telling.
const SETTLED_NS: i64 = 1_000_000_000;
const HEAD: &str = "boxyard digests 1";
/// Of files that a build did not ask for, so many stay remembered.
const MAX_OTHERS: usize = 500_000;

pub type Sha256Bytes = [u8; 32];

/// The remembered digests of one folder. Files are asked for in the order of [`by_components`].
pub struct Digests {
    /// Where they are kept; none: nowhere.
    file: Option<PathBuf>,
    old: Vec<Line>,
    /// Those before this one have been passed.
    at: usize,
    new: Vec<Line>,
    /// Only part of the folder is asked for: what is not stays as it is.
    is_part: bool,
    others: usize,
    changed: bool,
    now_ns: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    path: String,
    sign: Sign,
    digest: Sha256Bytes,
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
    /// What is remembered of a folder, of which all or only a part will be asked for. A file that cannot be read is as if
    /// nothing were.
    pub fn open(root: &Path, is_part: bool) -> Self {
        let file = place(root);
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        Self::new(file, &text, is_part, now_ns)
    }

    fn new(file: Option<PathBuf>, text: &str, is_part: bool, now_ns: i64) -> Self {
        Self { file, old: read(text), at: 0, new: Vec::new(), is_part, others: 0, changed: false, now_ns }
    }

    /// The digests of files' contents. Those that are not remembered are computed by all processors.
    pub fn of(&mut self, files: &[&Found]) -> io::Result<Vec<Sha256Bytes>> {
        let known: Vec<Option<Sha256Bytes>> = files.iter().map(|file| self.known(file)).collect();
        let unknown: Vec<&Path> = files
            .iter()
            .zip(&known)
            .filter(|(_, known)| known.is_none())
            .map(|(file, _)| file.full.as_path())
            .collect();
        self.changed |= !unknown.is_empty();
        let mut hashed = hash_all(&unknown)?.into_iter();
        let mut digests = Vec::with_capacity(files.len());
        for (file, known) in files.iter().zip(known) {
            let digest = known.or_else(|| hashed.next()).ok_or(io::ErrorKind::UnexpectedEof)?;
            self.remember(file, digest);
            digests.push(digest);
        }
        Ok(digests)
    }

    fn known(&mut self, file: &Found) -> Option<Sha256Bytes> {
        self.pass(Some(&file.path));
        let line = self.old.get(self.at).filter(|line| line.path == file.path)?;
        self.at += 1;
        (line.sign == Sign::from(&file.metadata)).then_some(line.digest)
    }

    /// Goes on to a path; what lies before it was not asked for.
    fn pass(&mut self, path: Option<&str>) {
        while let Some(line) = self.old.get(self.at)
            && path.is_none_or(|path| by_components(&line.path, path).is_lt())
        {
            self.at += 1;
            match self.is_part && self.others < MAX_OTHERS {
                true => {
                    self.others += 1;
                    self.new.push(line.clone());
                }
                false => self.changed = true,
            }
        }
    }

    /// One that changes just now, or has a time in the future, is read again the next time.
    fn remember(&mut self, file: &Found, digest: Sha256Bytes) {
        let sign = Sign::from(&file.metadata);
        if sign.ctime_ns.max(sign.mtime_ns) < self.now_ns - SETTLED_NS {
            self.new.push(Line { path: file.path.clone(), sign, digest });
        }
    }

    /// Remembers what was asked for. A cache that cannot be written costs time, nothing else.
    pub fn save(mut self) {
        self.pass(None);
        let Some(file) = self.file.filter(|_| self.changed) else { return };
        // What was passed while other files were looked at stands behind them.
        self.new.sort_by(|a, b| by_components(&a.path, &b.path));
        let mut text = HEAD.to_owned();
        for Line { path, sign: Sign { size, inode, mtime_ns, ctime_ns }, digest } in &self.new {
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

/// What is not in order would not be found, and is as if it were not there.
fn read(text: &str) -> Vec<Line> {
    let mut lines = text.split('\0');
    if lines.next() != Some(HEAD) {
        return Vec::new();
    }
    let lines: Vec<Line> = lines.filter_map(line).collect();
    match lines.is_sorted_by(|a, b| by_components(&a.path, &b.path).is_lt()) {
        true => lines,
        false => Vec::new(),
    }
}

fn line(text: &str) -> Option<Line> {
    let mut parts = text.splitn(6, ' ');
    let mut digest = [0; 32];
    hex::decode_to_slice(parts.next()?, &mut digest).ok()?;
    let sign = Sign {
        size: parts.next()?.parse().ok()?,
        inode: parts.next()?.parse().ok()?,
        mtime_ns: parts.next()?.parse().ok()?,
        ctime_ns: parts.next()?.parse().ok()?,
    };
    Some(Line { path: parts.next()?.to_owned(), sign, digest })
}

/// The digests of files, in their order.
fn hash_all(files: &[&Path]) -> io::Result<Vec<Sha256Bytes>> {
    let part = |files: &[&Path]| {
        let mut buffer = vec![0; 128 << 10];
        files.iter().map(|file| hash(file, &mut buffer)).collect::<io::Result<Vec<_>>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    if threads <= 1 {
        return if files.is_empty() { Ok(Vec::new()) } else { part(files) };
    }
    std::thread::scope(|scope| {
        let parts = files.chunks(files.len().div_ceil(threads));
        let running: Vec<_> = parts.map(|files| scope.spawn(move || part(files))).collect();
        let mut digests = Vec::with_capacity(files.len());
        for part in running {
            digests.extend(part.join().map_err(|_| io::Error::other("a file could not be read"))??);
        }
        Ok(digests)
    })
}

fn hash(full: &Path, buffer: &mut [u8]) -> io::Result<Sha256Bytes> {
    let told =
        |e: io::Error| io::Error::new(e.kind(), format!("open {}: {}", full.display(), crate::commands::os_words(&e)));
    let mut file = crate::regular::open_itself(full).map_err(told)?;
    let mut hash = Sha256::new();
    loop {
        match file.read(buffer)? {
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

    struct Folder {
        temp: tempfile::TempDir,
    }

    impl Folder {
        fn new() -> Self {
            Self { temp: tempfile::tempdir().expect("a folder") }
        }

        fn found(&self, path: &str) -> Found {
            let full = self.temp.path().join(path.replace('/', "-"));
            let metadata = full.metadata().expect("metadata");
            Found { path: path.to_owned(), full, metadata }
        }

        fn write(&self, path: &str, text: &str) -> Found {
            std::fs::write(self.temp.path().join(path.replace('/', "-")), text).expect("written");
            self.found(path)
        }

        fn open(&self, is_part: bool, now_ns: i64) -> Digests {
            let file = self.temp.path().join("cache");
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            Digests::new(Some(file), &text, is_part, now_ns)
        }
    }

    fn sha256(text: &str) -> Sha256Bytes {
        Sha256::digest(text.as_bytes()).into()
    }

    #[test]
    fn what_is_remembered() {
        let folder = Folder::new();
        let found = folder.write("a b", "one");
        let mut first = folder.open(false, i64::MAX);
        assert_eq!(first.of(&[&found]).expect("hashed"), [sha256("one")]);
        first.save();
        let changed = folder.write("a b", "two");
        let mut second = folder.open(false, i64::MAX);
        assert_eq!(second.of(&[&found]).expect("remembered"), [sha256("one")], "by the same metadata");
        let mut third = folder.open(false, i64::MAX);
        let other = Found { path: "other".to_owned(), ..folder.found("a b") };
        assert_eq!(third.of(&[&other]).expect("hashed"), [sha256("two")]);
        let mut fresh = folder.open(false, Sign::from(&changed.metadata).ctime_ns);
        fresh.of(&[&changed]).expect("hashed");
        assert!(fresh.new.is_empty(), "what has just changed is not remembered");
    }

    #[test]
    fn a_part_leaves_the_rest_remembered() {
        let folder = Folder::new();
        let files: Vec<Found> = ["a/b", "a.b", "c", "d"].into_iter().map(|path| folder.write(path, path)).collect();
        let ask = |is_part: bool, files: &[&Found]| {
            let mut digests = folder.open(is_part, i64::MAX);
            let known = digests.old.len();
            let told = digests.of(files).expect("hashed");
            let wanted: Vec<Sha256Bytes> = files.iter().map(|file| sha256(&file.path)).collect();
            assert_eq!(told, wanted);
            digests.save();
            known
        };
        let all: Vec<&Found> = files.iter().collect();
        ask(false, &all);
        assert_eq!(ask(true, &[&files[2]]), 4);
        let again = Found { metadata: folder.write("c", "c").metadata, ..folder.found("c") };
        assert_eq!(ask(true, &[&again]), 4);
        assert_eq!(ask(false, &all[..2]), 4, "a part does not forget the others");
        assert_eq!(ask(false, &all), 2, "the whole forgets what is not there any more");
    }
}
