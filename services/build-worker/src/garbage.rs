//! The cap of what is kept on this machine: unpacked layers, which its node and all its workers share, and this worker's laid
//! out trees, contexts and cache mounts. Nothing that is in use goes, of the rest what was used longest ago goes first; it
//! comes again from the layer store when it is wanted again. Trees and contexts have bounds of their own besides.
//!
//! Whoever adds something wakes the keeper: other processes by the layer's record, in whose folder they write it. Of several
//! workers of a machine one at a time looks, and the smallest cap holds for the layers.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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

/// What comes at once is looked at together.
const GATHER: Duration = Duration::from_millis(200);
/// What was in use when it was looked at may not be any more: nobody tells of that.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
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
}

/// Something that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unused {
    Layer(DiffId),
    Cache(PathBuf),
    Tree(PathBuf),
    Context(PathBuf),
}

impl Keeper {
    /// Holds the cap until `stop`, also while builds go on.
    pub async fn hold(self, stop: CancellationToken) {
        let grown = self.grown.clone();
        if let Err(error) = watch(&self.snapshots.records(), grown.clone()) {
            tracing::warn!(%error, "layers that others unpack are noticed late");
        }
        let mut past = false;
        loop {
            let keeper = self.clone();
            match blocking(move || keeper.look()).await {
                Ok(left_bytes) => {
                    let is_past = left_bytes > self.cap_bytes;
                    if is_past && !past {
                        tracing::warn!(left_bytes, self.cap_bytes, "what builds and containers hold is past the cap");
                    }
                    past = is_past;
                }
                Err(error) => tracing::warn!(%error, "what is kept may be past its cap"),
            }
            let again = if past { LOOK_AGAIN } else { Duration::MAX };
            tokio::select! {
                () = stop.cancelled() => return,
                () = grown.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Says how many bytes are left.
    fn look(&self) -> Result<u64, Failure> {
        let path = self.machine_dir.join("keeper.lock");
        let doing = || format!("locking {}", path.display());
        let lock = File::create(&path).doing(doing)?;
        // Given back when it is closed.
        lock.lock().doing(doing)?;
        let mut left_bytes = self.snapshots.bytes().map_err(Failure::caused)?
            + self.trees.kept().bytes
            + self.contexts.kept().bytes
            + self.caches.bytes();
        if left_bytes <= self.cap_bytes {
            return Ok(left_bytes);
        }
        let going = going(self.unused()?, left_bytes - self.cap_bytes);
        let count = going.len();
        let (mut freed_bytes, mut layers) = (0, HashMap::new());
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
        Ok(left_bytes)
    }

    /// All that may go: when it was used last, its bytes, what it is.
    fn unused(&self) -> Result<Vec<(SystemTime, u64, Unused)>, Failure> {
        type Folder = (PathBuf, u64, SystemTime);
        let layers = self.snapshots.unheld().map_err(Failure::caused)?.into_iter();
        let layers = layers.map(|(layer, bytes, used)| (used, bytes, Unused::Layer(layer)));
        let folders = |found: Vec<Folder>, kind: fn(PathBuf) -> Unused| {
            found.into_iter().map(move |(path, bytes, used)| (used, bytes, kind(path)))
        };
        let caches = folders(self.caches.unused(), Unused::Cache);
        let trees = folders(self.trees.unused(), Unused::Tree);
        let contexts = folders(self.contexts.unused(), Unused::Context);
        Ok(layers.chain(caches).chain(trees).chain(contexts).collect())
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
        let unused =
            vec![(at(3), 10, layer("c")), (at(1), 10, cache("a")), (at(2), 10, layer("b")), (at(4), 10, cache("d"))];
        for (excess, wanted) in [
            (0, vec![]),
            (1, vec![cache("a")]),
            (10, vec![cache("a")]),
            (11, vec![cache("a"), layer("b")]),
            (99, vec![cache("a"), layer("b"), layer("c"), cache("d")]),
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
