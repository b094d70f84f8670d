use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use model::{DiffId, Digest};
use sha2::{Digest as _, Sha256};

use crate::unpack::{UnpackOptions, unpack};
use crate::{Error, durable, locks};

/// So long whoever holds or publishes a layer waits for one that removes, which looks at a list and takes names away.
const REMOVING: Duration = Duration::from_secs(30);
/// So long one that removes waits for those.
const HOLDING: Duration = Duration::from_secs(5);
/// Who unpacks a layer tells so often that it gets on.
const TELL: Duration = Duration::from_secs(1);
/// Who has not told anything for so long is not waited for.
const STANDSTILL: Duration = Duration::from_secs(10);
/// How often those who wait look.
const LOOK: Duration = Duration::from_millis(200);

/// The unpacked layers of one machine; a handle to the folder, cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    root: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerStat {
    /// Sum of the sizes of the layer's files, as Docker counts an image's size.
    pub content_bytes: u64,
}

impl Snapshots {
    /// Opens or makes the folder, and sweeps what processes that are gone left half done.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let root = root.into();
        for folder in ["ids", "l", "l/empty", "refs", "t", "locks"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(Error::io("making", path))?;
        }
        let snapshots = Self { root: fs::canonicalize(&root).map_err(Error::io("opening", &root))? };
        snapshots.sweep()?;
        // What a process that is gone has left unwritten.
        durable::write_soon(&snapshots);
        Ok(snapshots)
    }

    pub fn has_layer(&self, diff_id: &DiffId) -> bool {
        self.record(diff_id).is_ok()
    }

    /// # Errors
    /// `NotFound` when the layer is not unpacked here.
    pub fn stat(&self, diff_id: &DiffId) -> Result<LayerStat, Error> {
        Ok(self.record(diff_id)?.1)
    }

    /// The layer's folder, to be read only.
    ///
    /// # Errors
    /// `NotFound` when the layer is not unpacked here.
    pub fn folder(&self, diff_id: &DiffId) -> Result<PathBuf, Error> {
        Ok(self.layers().join(self.record(diff_id)?.0))
    }

    /// Unpacks the uncompressed tar of a layer. May be repeated, and called for one layer from several processes at once:
    /// one unpacks, the others wait for as long as it gets on. Does not read `tar` when the layer is there.
    ///
    /// # Errors
    /// `Corrupt` when the tar does not have the diff id; `InvalidArgument` for a broken or hostile tar.
    pub fn apply(&self, diff_id: &DiffId, tar: impl Read) -> Result<LayerStat, Error> {
        self.apply_while(diff_id, tar, || Ok(()))
    }

    /// The same, which looks at `still_wanted` while it waits for another who unpacks the layer; while it unpacks, `tar` is
    /// what may break it off.
    ///
    /// # Errors
    /// As [`Snapshots::apply`]; what `still_wanted` says.
    pub fn apply_while(
        &self,
        diff_id: &DiffId,
        tar: impl Read,
        still_wanted: impl Fn() -> io::Result<()>,
    ) -> Result<LayerStat, Error> {
        let turn = Turn::take(self, diff_id, still_wanted)?;
        if let Ok(stat) = self.stat(diff_id) {
            return Ok(stat);
        }
        let folder = self.temporary()?;
        let applied = self.unpack_verified(&folder, diff_id, Told { inner: tar, turn }).and_then(|stat| {
            self.publish(&folder, diff_id, stat)?;
            Ok(stat)
        });
        if applied.is_err() {
            remove_tree(&folder);
        }
        applied
    }

    /// Makes `upper`, a finished writable folder on the same file system, into the layer `diff_id`, which the caller
    /// has computed by [`Snapshots::diff`], as has its size. `upper` is gone afterwards.
    ///
    /// # Errors
    /// What the file system says.
    pub fn adopt(&self, upper: &Path, diff_id: &DiffId, content_bytes: u64) -> Result<(), Error> {
        self.publish(upper, diff_id, LayerStat { content_bytes })
    }

    fn unpack_verified(&self, folder: &Path, diff_id: &DiffId, tar: impl Read) -> Result<LayerStat, Error> {
        let mut tar = Hashed { inner: tar, hash: Sha256::new() };
        let options = UnpackOptions { whiteouts: true, ..UnpackOptions::default() };
        let content_bytes = unpack(folder, Path::new(""), &mut tar, &options)?;
        // What follows the end of the archive is part of the blob.
        io::copy(&mut tar, &mut io::sink()).map_err(Error::Archive)?;
        let got = DiffId::new(Digest::from_sha256(&tar.hash.finalize().into()));
        if got != *diff_id {
            return Err(Error::DiffId { wanted: diff_id.clone(), got });
        }
        Ok(LayerStat { content_bytes })
    }

    /// Moves a whole folder in and names it; the name is what makes it a layer.
    fn publish(&self, folder: &Path, diff_id: &DiffId, stat: LayerStat) -> Result<(), Error> {
        let _lock = self.gc_shared()?;
        let name = random_name();
        let place = self.layers().join(&name);
        fs::rename(folder, &place).map_err(Error::io("moving in", folder))?;
        let draft = self.draft();
        let named = fs::write(&draft, format!("{name} {} {}\n", stat.content_bytes, *durable::BOOT_ID))
            // A link fails when the name is there, which a rename would not: the first who publishes a layer wins.
            .and_then(|()| match fs::hard_link(&draft, self.id_file(diff_id)) {
                // A record of before the machine's crash is not a layer.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.has_layer(diff_id) => {
                    fs::rename(&draft, self.id_file(diff_id))
                }
                other => other,
            });
        let _ = fs::remove_file(&draft);
        match named {
            Ok(()) => {
                durable::write_soon(self);
                Ok(())
            }
            Err(error) => {
                remove_tree(&place);
                if error.kind() == io::ErrorKind::AlreadyExists {
                    return Ok(());
                }
                Err(Error::io("naming", self.id_file(diff_id))(error))
            }
        }
    }

    fn record(&self, diff_id: &DiffId) -> Result<(String, LayerStat), Error> {
        let path = self.id_file(diff_id);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoLayer(diff_id.clone())),
            other => other.map_err(Error::io("reading", path))?,
        };
        // A record that cannot be read counts as no layer, so that it is unpacked anew.
        let (name, stat) = parse(&text).ok_or_else(|| Error::NoLayer(diff_id.clone()))?;
        Ok((name.to_owned(), stat))
    }

    /// A new folder for half-done work, swept when this process is gone.
    fn temporary(&self) -> Result<PathBuf, Error> {
        let path = self.root.join("t").join(self.temporary_name());
        fs::create_dir(&path).map_err(Error::io("making", &path))?;
        Ok(path)
    }

    fn temporary_name(&self) -> String {
        let pid = std::process::id();
        format!("{pid}-{}-{}", start_time(pid).unwrap_or(0), random_name())
    }

    /// A file that is renamed or linked when it is whole.
    pub(crate) fn draft(&self) -> PathBuf {
        self.root.join("t").join(format!("{}-id", self.temporary_name()))
    }

    fn sweep(&self) -> Result<(), Error> {
        let lock = self.gc_lock()?;
        if lock.try_lock().is_err() {
            // Somebody is at work; the next start sweeps.
            return Ok(());
        }
        for path in list(&self.root.join("t"))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let mut parts = name.split('-').map(str::parse::<u64>);
            let alive = match (parts.next(), parts.next()) {
                (Some(Ok(pid)), Some(Ok(start))) => u32::try_from(pid).ok().and_then(start_time) == Some(start),
                _ => false,
            };
            if !alive {
                remove_tree(&path);
            }
        }
        let mut named = Vec::new();
        for path in list(&self.root.join("ids"))? {
            match fs::read_to_string(&path).ok().as_deref().and_then(parse) {
                Some((name, _)) => named.push(name.to_owned()),
                None => remove_tree(&path),
            }
        }
        for path in list(&self.layers())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name != "empty" && !named.iter().any(|known| known == name) {
                remove_tree(&path);
            }
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the layers' folders are; a mount is made from here.
    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("l")
    }

    pub(crate) fn id_file(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("ids").join(diff_id.hex())
    }

    /// As long as this lives, nothing is removed.
    pub(crate) fn gc_shared(&self) -> Result<File, Error> {
        let lock = self.gc_lock()?;
        let path = || self.root.join("gc.lock");
        match locks::lock_shared_within(&lock, REMOVING).map_err(Error::io("locking", path()))? {
            true => Ok(lock),
            false => Err(Error::Locked(path(), REMOVING)),
        }
    }

    /// As long as this lives, nothing gains a holder, and nobody else removes.
    pub(crate) fn gc_alone(&self) -> Result<File, Error> {
        let lock = self.gc_lock()?;
        let path = || self.root.join("gc.lock");
        match locks::lock_within(&lock, HOLDING).map_err(Error::io("locking", path()))? {
            true => Ok(lock),
            false => Err(Error::Locked(path(), HOLDING)),
        }
    }

    pub(crate) fn gc_lock(&self) -> Result<File, Error> {
        let path = self.root.join("gc.lock");
        File::options().create(true).truncate(false).write(true).open(&path).map_err(Error::io("opening", path))
    }
}

/// A layer's record: its folder's name, its size, and the boot in which it was made until it is on disk.
fn parse(text: &str) -> Option<(&str, LayerStat)> {
    let mut words = text.split_whitespace();
    let (name, bytes) = (words.next()?, words.next()?);
    let is_whole = words.next().is_none_or(|boot| boot == *durable::BOOT_ID);
    is_whole.then_some((name, LayerStat { content_bytes: bytes.parse().ok()? }))
}

pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("listing", folder))?;
    entries.map(|entry| Ok(entry.map_err(Error::io("listing", folder))?.path())).collect()
}

/// Removes a tree of ours as far as it can; what stays is found by the next sweep.
pub(crate) fn remove_tree(path: &Path) {
    let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed {
        tracing::warn!(%error, path = %path.display(), "a folder could not be removed");
    }
}

/// Twelve hex digits: short, so that many layers fit into one mount.
fn random_name() -> String {
    hex::encode(rand::random::<[u8; 6]>())
}

/// When a process started, in ticks since boot; with the pid it names a process for good.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may hold spaces.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Somebody's turn to unpack a layer, until it is dropped.
struct Turn {
    file: File,
    told: Instant,
}

impl Turn {
    /// Waits until the layer is there, nobody else unpacks it, or whoever does gets no further: it may be stopped, or wait for
    /// what never comes. Two who unpack the same do no harm.
    ///
    /// # Errors
    /// Those of `still_wanted`, which is asked at each look.
    fn take(snapshots: &Snapshots, diff_id: &DiffId, still_wanted: impl Fn() -> io::Result<()>) -> Result<Self, Error> {
        let path = snapshots.root.join("locks").join(diff_id.hex());
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let mut turn = Self { file: file.map_err(Error::io("making", &path))?, told: Instant::now() };
        while !locks::lock_within(&turn.file, LOOK).map_err(Error::io("locking", &path))? {
            still_wanted().map_err(Error::io("waiting for", &path))?;
            let still = turn.file.metadata().and_then(|found| found.modified());
            let still = still.map_err(Error::io("reading", &path))?.elapsed().unwrap_or_default();
            if snapshots.has_layer(diff_id) || still > STANDSTILL {
                break;
            }
        }
        turn.tell();
        Ok(turn)
    }

    /// Tells those who wait that there is progress.
    fn tell(&mut self) {
        // One who cannot tell is not waited for.
        let _ = self.file.set_modified(SystemTime::now());
        self.told = Instant::now();
    }
}

struct Told<R> {
    inner: R,
    turn: Turn,
}

impl<R: Read> Read for Told<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if self.turn.told.elapsed() > TELL {
            self.turn.tell();
        }
        Ok(count)
    }
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_gets_no_further_is_not_waited_for() {
        let temp = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(temp.path()).expect("opens");
        let tar = tar::Builder::new(Vec::new()).into_inner().expect("an empty tar");
        let layer = DiffId::new(Digest::of(&tar));
        let stopped = Turn::take(&snapshots, &layer, || Ok(())).expect("its turn");
        let waiting = std::thread::spawn({
            let (snapshots, layer, tar) = (snapshots.clone(), layer.clone(), tar.clone());
            move || snapshots.apply(&layer, tar.as_slice())
        });
        std::thread::sleep(LOOK * 2);
        assert!(!waiting.is_finished() && !snapshots.has_layer(&layer), "it may get on");
        stopped.file.set_modified(SystemTime::now() - STANDSTILL * 2).expect("set");
        waiting.join().expect("it ends").expect("unpacked");
        assert!(snapshots.has_layer(&layer));
    }

    #[test]
    fn who_waits_for_another_ends_when_it_is_not_wanted_any_more() {
        let temp = tempfile::tempdir().expect("a folder");
        let snapshots = Snapshots::open(temp.path()).expect("opens");
        let layer = DiffId::new(Digest::of(b"a layer"));
        let mut other = Turn::take(&snapshots, &layer, || Ok(())).expect("its turn");
        let unwanted = Arc::<AtomicBool>::default();
        let waiting = std::thread::spawn({
            let (snapshots, layer, unwanted) = (snapshots.clone(), layer.clone(), unwanted.clone());
            move || {
                snapshots.apply_while(&layer, io::empty(), || match unwanted.load(Ordering::Acquire) {
                    true => Err(io::Error::other("unwanted")),
                    false => Ok(()),
                })
            }
        });
        std::thread::sleep(LOOK * 2);
        assert!(!waiting.is_finished(), "the other gets on");
        unwanted.store(true, Ordering::Release);
        // The other goes on for as long as this takes.
        while !waiting.is_finished() {
            other.tell();
            std::thread::sleep(LOOK);
        }
        let error = waiting.join().expect("it ends").expect_err("nothing was unpacked");
        assert!(error.to_string().ends_with("unwanted"), "{error}");
        assert!(list(&snapshots.root().join("t")).expect("listed").is_empty(), "nothing half");
    }
}
