//! The cap of what is kept on this machine: unpacked layers, which its node and all its workers share, and the workers' laid
//! out trees, contexts and cache mounts. Nothing that is in use goes, of the rest what was used longest ago goes first; it
//! comes again from the layer store when it is wanted again. Trees and contexts have bounds of their own besides.
//!
//! Whoever adds something wakes the keepers: other processes by the layer's record, in whose folder they write it, other
//! workers by what they tell ([`crate::neighbours`]). Of several workers of a machine one at a time looks. Each lets go of
//! layers and of what is its own; what goes first may be another's, who does so a moment later.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::DiffId;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use snapshots::Snapshots;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;
use crate::context::kept::Kept;
use crate::context::trees::Trees;
use crate::failure::{Doing as _, Failure};
use crate::layers::blocking;
use crate::neighbours::{Kept as Told, Neighbours};

/// What comes at once is looked at together.
const GATHER: Duration = Duration::from_millis(200);
/// What was in use when it was looked at may not be any more: nobody tells of that.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// So long another worker's look is waited for: it removes what may be much.
const PATIENCE: Duration = Duration::from_secs(20);
/// Without a cap of its own a machine has this part of its disk.
const DISK_PART: u64 = 2;

/// The cap that was given, else a part of the disk of this folder.
pub fn cap_bytes(given: u64, folder: &Path) -> u64 {
    if given != 0 {
        return given;
    }
    // A disk that cannot be asked has no cap.
    nix::sys::statvfs::statvfs(folder).map_or(u64::MAX, |disk| disk.blocks() * disk.fragment_size() / DISK_PART)
}

/// All that counts.
#[derive(Clone)]
pub struct Keeper {
    pub snapshots: Snapshots,
    pub trees: Arc<Trees>,
    pub contexts: Arc<Kept>,
    pub caches: Arc<Caches>,
    /// Told when there is more than before.
    pub grown: Arc<Notify>,
    pub cap_bytes: u64,
    /// The folder that the machine's processes share.
    pub machine_dir: PathBuf,
    /// The machine's other workers.
    pub neighbours: Neighbours,
}

/// What a look has come to.
struct Looked {
    left_bytes: u64,
    /// Of these, what others are to let go of.
    others_bytes: u64,
}

/// Something that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unused {
    Layer(DiffId),
    Cache(PathBuf),
    Tree(PathBuf),
    Context(PathBuf),
    /// Another worker's.
    Others,
}

impl Keeper {
    /// Holds the cap until `stop`, also while builds go on.
    pub async fn hold(self, stop: CancellationToken) {
        let grown = self.grown.clone();
        for folder in [&self.snapshots.records(), self.neighbours.folder()] {
            if let Err(error) = watch(folder, grown.clone()) {
                tracing::warn!(%error, "what others keep is noticed late");
            }
        }
        let (mut past, mut told) = (None::<Instant>, false);
        loop {
            // Others that have let go of nothing by then will not do so.
            let alone = past.is_some_and(|since| since.elapsed() >= LOOK_AGAIN);
            let keeper = self.clone();
            match blocking(move || keeper.look(alone)).await {
                Ok(Looked { left_bytes, others_bytes }) => {
                    let is_held = left_bytes.saturating_sub(others_bytes) > self.cap_bytes;
                    if is_held && !told {
                        tracing::warn!(left_bytes, self.cap_bytes, "what builds and containers hold is past the cap");
                    }
                    told = is_held;
                    past = (left_bytes > self.cap_bytes).then(|| past.unwrap_or_else(Instant::now));
                }
                Err(error) => tracing::warn!(%error, "what is kept may be past its cap"),
            }
            let again = if past.is_some() { LOOK_AGAIN } else { Duration::MAX };
            tokio::select! {
                () = stop.cancelled() => return,
                () = grown.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Lets go of what is too much; `alone`: of what the others keep nothing goes. Then tells them what is left.
    fn look(&self, alone: bool) -> Result<Looked, Failure> {
        let path = self.machine_dir.join("keeper.lock");
        let doing = || format!("locking {}", path.display());
        let lock = File::create(&path).doing(doing)?;
        // Given back when it is closed. Where another has stopped in the middle, two that look at once let go of too much at worst.
        if !snapshots::lock_within(&lock, PATIENCE).doing(doing)? {
            tracing::warn!(path = %path.display(), "another worker of this machine does not get on with its cap");
        }
        let reading = || "reading what other workers keep".to_owned();
        let others = self.neighbours.others().doing(reading)?;
        let others_bytes: u64 = others.iter().map(|kept| kept.bytes).sum();
        let layers_bytes = self.snapshots.bytes().map_err(Failure::caused)?;
        let looked =
            self.let_go(layers_bytes + others_bytes + self.own_bytes(), if alone { Vec::new() } else { others })?;
        let unused = self.own_unused().into_iter().map(|(used, bytes, _)| (used, bytes)).collect();
        let telling = || "telling other workers what is kept".to_owned();
        self.neighbours.tell(&Told { bytes: self.own_bytes(), unused }).doing(telling)?;
        Ok(looked)
    }

    /// What this worker keeps beside the layers.
    fn own_bytes(&self) -> u64 {
        self.trees.kept().bytes + self.contexts.kept().bytes + self.caches.bytes()
    }

    fn let_go(&self, mut left_bytes: u64, others: Vec<Told>) -> Result<Looked, Failure> {
        if left_bytes <= self.cap_bytes {
            return Ok(Looked { left_bytes, others_bytes: 0 });
        }
        let layers = self.snapshots.unheld().map_err(Failure::caused)?.into_iter();
        let layers = layers.map(|(layer, bytes, used)| (used, bytes, Unused::Layer(layer)));
        let others = others.into_iter().flat_map(|kept| kept.unused);
        let others = others.map(|(used, bytes)| (used, bytes, Unused::Others));
        let unused = layers.chain(others).chain(self.own_unused()).collect();
        let going = going(unused, left_bytes - self.cap_bytes);
        let (mut count, mut freed_bytes, mut others_bytes) = (going.len(), 0, 0);
        let mut layers = HashMap::new();
        for (bytes, unused) in going {
            // Who takes one meanwhile keeps it.
            let is_gone = match unused {
                Unused::Layer(layer) => {
                    layers.insert(layer, bytes);
                    continue;
                }
                Unused::Cache(path) => self.caches.remove_unused(&path),
                Unused::Tree(path) => self.trees.remove_unused(&path),
                Unused::Context(path) => self.contexts.remove_unused(&path),
                Unused::Others => {
                    (count, others_bytes) = (count - 1, others_bytes + bytes);
                    continue;
                }
            };
            freed_bytes += if is_gone { bytes } else { 0 };
        }
        // Together: for each call all that is held is looked at.
        let ids: Vec<DiffId> = layers.keys().cloned().collect();
        let gone = self.snapshots.remove_unheld(&ids).map_err(Failure::caused)?;
        freed_bytes += gone.iter().map(|layer| layers[layer]).sum::<u64>();
        left_bytes -= freed_bytes;
        if freed_bytes > 0 {
            tracing::info!(
                count,
                freed_bytes,
                left_bytes,
                self.cap_bytes,
                "what was used longest ago went for the cap"
            );
        }
        Ok(Looked { left_bytes, others_bytes })
    }

    /// What of this worker's own may go: when it was used last, its bytes, what it is.
    fn own_unused(&self) -> Vec<(SystemTime, u64, Unused)> {
        type Folder = (PathBuf, u64, SystemTime);
        let folders = |found: Vec<Folder>, kind: fn(PathBuf) -> Unused| {
            found.into_iter().map(move |(path, bytes, used)| (used, bytes, kind(path)))
        };
        let caches = folders(self.caches.unused(), Unused::Cache);
        let trees = folders(self.trees.unused(), Unused::Tree);
        let contexts = folders(self.contexts.unused(), Unused::Context);
        caches.chain(trees).chain(contexts).collect()
    }
}

/// Those that were used longest ago, until so many bytes are free.
fn going(mut unused: Vec<(SystemTime, u64, Unused)>, mut excess_bytes: u64) -> Vec<(u64, Unused)> {
    unused.sort_by_key(|(used, _, _)| *used);
    let mut going = Vec::new();
    for (_, bytes, unused) in unused {
        if excess_bytes == 0 {
            break;
        }
        excess_bytes = excess_bytes.saturating_sub(bytes);
        going.push((bytes, unused));
    }
    going
}

/// Wakes whoever waits for `grown` when a file comes into the folder.
fn watch(folder: &Path, grown: Arc<Notify>) -> nix::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(folder, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
    // Ends with the process: it waits for what may never come.
    std::thread::spawn(move || {
        while inotify.read_events().is_ok() {
            grown.notify_one();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_whatever_it_is() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let layer = |name: &str| Unused::Layer(DiffId::new(model::Digest::of(name.as_bytes())));
        let cache = |name: &str| Unused::Cache(PathBuf::from(name));
        let unused = vec![
            (at(3), 10, layer("c")),
            (at(5), 10, Unused::Others),
            (at(1), 10, cache("a")),
            (at(2), 10, layer("b")),
            (at(4), 10, cache("d")),
        ];
        for (excess, wanted) in [
            (0, vec![]),
            (1, vec![cache("a")]),
            (10, vec![cache("a")]),
            (11, vec![cache("a"), layer("b")]),
            (99, vec![cache("a"), layer("b"), layer("c"), cache("d"), Unused::Others]),
        ] {
            let going: Vec<Unused> = going(unused.clone(), excess).into_iter().map(|(_, unused)| unused).collect();
            assert_eq!(going, wanted, "{excess}");
        }
    }

    #[tokio::test]
    async fn a_file_that_comes_wakes_the_keeper() {
        let temp = tempfile::tempdir().expect("temp folder");
        let grown = Arc::new(Notify::new());
        watch(temp.path(), grown.clone()).expect("watched");
        std::fs::write(temp.path().join("x"), "").expect("written");
        tokio::time::timeout(Duration::from_secs(20), grown.notified()).await.expect("woken");
    }
}
