//! What each worker of a machine keeps beside the layers that all share, told to the others: the cap is the machine's.
//!
//! `machine/kept/<worker id>` holds the worker's data folder, its bytes, and of each thing that may go when it was used last
//! (nanoseconds since 1970) and its bytes, a line each. Only that worker writes it, by a rename, which wakes the others; what
//! a worker has told counts for as long as its data folder is there; of one that is down only what it had in use, since nothing
//! of the rest goes before it is up again, and the others' caches are not to go in its place. That it runs is a lock that it
//! has in its data folder (`running.lock`), which ends with its process.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::failure::{Doing as _, Failure};

const FOLDER: &str = "kept";
const RUNNING: &str = "running.lock";
/// So long the lock is waited for, which others have for a moment when they look.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a worker keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// All of it.
    pub bytes: u64,
    /// Of what nobody uses: when it was used last, and its bytes.
    pub unused: Vec<(SystemTime, u64)>,
}

impl Kept {
    /// Without what nobody uses.
    fn in_use(&self) -> Self {
        let unused_bytes = self.unused.iter().map(|(_, bytes)| bytes).sum();
        Self { bytes: self.bytes.saturating_sub(unused_bytes), unused: Vec::new() }
    }
}

/// The workers of a machine, as one of them sees them.
#[derive(Clone, Debug)]
pub struct Neighbours {
    folder: PathBuf,
    id: String,
    data_dir: PathBuf,
    /// Locked for as long as this worker runs.
    _running: Arc<File>,
}

impl Neighbours {
    /// Of the worker with this id and data folder, which counts as up until this is dropped.
    pub fn open(machine_dir: &Path, id: &str, data_dir: &Path) -> Result<Self, Failure> {
        let folder = machine_dir.join(FOLDER);
        let opening = || format!("opening {}", folder.display());
        std::fs::create_dir_all(&folder).doing(opening)?;
        // The others have another working folder.
        let data_dir = data_dir.canonicalize().doing(|| format!("opening {}", data_dir.display()))?;
        let running = File::create(data_dir.join(RUNNING)).doing(opening)?;
        if !snapshots::lock_shared_within(&running, PATIENCE).doing(opening)? {
            tracing::warn!(data_dir = %data_dir.display(), "other workers of this machine take this one to be down");
        }
        Ok(Self { folder, id: id.to_owned(), data_dir, _running: Arc::new(running) })
    }

    /// A file comes into it each time that somebody tells anything new.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the others have told; of those that are down, what they had in use. Blocks.
    pub fn others(&self) -> io::Result<Vec<Kept>> {
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == self.id.as_str()) {
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            match parse(&text) {
                Some((data_dir, kept)) if is_running(&data_dir) => others.push(kept),
                Some((data_dir, kept)) if data_dir.is_dir() => others.push(kept.in_use()),
                // A worker that is gone with all that it kept.
                _ => std::fs::remove_file(&path)?,
            }
        }
        Ok(others)
    }

    /// Tells the others, unless they know. Blocks.
    pub fn tell(&self, kept: &Kept) -> io::Result<()> {
        let (path, text) = (self.folder.join(&self.id), text(&self.data_dir, kept));
        if std::fs::read_to_string(&path).is_ok_and(|told| told == text) {
            return Ok(());
        }
        let draft = self.folder.with_extension(format!("{}.draft", self.id));
        std::fs::write(&draft, text)?;
        std::fs::rename(draft, path)
    }
}

/// Whether the worker that has this data folder runs.
fn is_running(data_dir: &Path) -> bool {
    let lock = File::open(data_dir.join(RUNNING));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

fn text(data_dir: &Path, kept: &Kept) -> String {
    let mut text = format!("{}\n{}\n", data_dir.display(), kept.bytes);
    for (used, bytes) in &kept.unused {
        let used = used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        text.push_str(&format!("{} {bytes}\n", used.as_nanos()));
    }
    text
}

fn parse(text: &str) -> Option<(PathBuf, Kept)> {
    let mut lines = text.lines();
    let (data_dir, bytes) = (lines.next()?, lines.next()?.parse().ok()?);
    let unused = lines.map(|line| {
        let (used, bytes) = line.split_once(' ')?;
        Some((SystemTime::UNIX_EPOCH + Duration::from_nanos(used.parse().ok()?), bytes.parse().ok()?))
    });
    Some((PathBuf::from(data_dir), Kept { bytes, unused: unused.collect::<Option<_>>()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_counts() {
        let temp = tempfile::tempdir().expect("a folder");
        let worker = |id: &str| {
            let data_dir = temp.path().join(format!("data.{id}"));
            std::fs::create_dir_all(&data_dir).expect("made");
            Neighbours::open(temp.path(), id, &data_dir).expect("opened")
        };
        // An id may hold a dot.
        let (first, second) = (worker("one"), worker("two.b"));
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let kept = Kept { bytes: 12, unused: vec![(at(3), 4), (at(1), 5)] };
        first.tell(&Kept::default()).expect("told");
        first.tell(&kept).expect("told");
        assert_eq!(second.others().expect("read"), std::slice::from_ref(&kept));
        assert_eq!(first.others().expect("read"), []);
        std::fs::write(temp.path().join("kept/broken"), "x").expect("written");
        drop(first);
        assert_eq!(second.others().expect("read"), [Kept { bytes: 3, unused: vec![] }], "it is down");
        let first = worker("one");
        assert_eq!(second.others().expect("read"), [kept], "it is up again");
        drop(first);
        std::fs::remove_dir_all(temp.path().join("data.one")).expect("removed");
        assert_eq!(second.others().expect("read"), [], "it is gone, and what is none");
        assert_eq!(std::fs::read_dir(temp.path().join("kept")).expect("list").count(), 0);
    }
}
