//! What `RUN --mount=type=cache` keeps, on whichever worker its steps run.
//!
//! ```text
//! D/<key>/shared/root      for all steps at once, also those that wait for one another (locked)
//! D/<key>/<number>/root    private: one step at a time has it
//! D/<key>/…/version        the stored version that root holds (0: it is stored, and others' changes with it), and its bytes;
//!                          while a step may change it, it is not there
//! ```
//!
//! ```text
//! take ── turn ──▶ enter ──▶ the step ──▶ end: looked at, stored, locks given back
//!          └─ what another worker has stored since is brought
//! ```
//!
//! The gateway says which version is stored (`CacheMountGet`); the files lie in the layer store as a tree and packs. Before
//! a step begins its worker brings what differs from what it holds; after it has ended, behind the build, what it changed
//! is stored ([`leave`]). Of a shared cache that several steps have at once, the last one to end on a worker stores, so that no
//! half-written file is; steps of two workers are made one by path ([`files::merge`]). A locked one is given on when it is
//! stored, so the next holder sees all of it. Of private ones the last to end counts.

mod bring;
mod files;
mod known;
mod leave;
mod scan;
mod upload;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bus::{Bus, Target, calls};
use distribution::Store;
use model::{PRIVATE, cache_key};
use service::metrics::{Family, Kind};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claims::Claim;
use crate::failure::{Doing as _, Failure};
use crate::flight::Ended;
use crate::halt;
use crate::patience::patiently;
use files::Files;
use known::Known;
use scan::{Index, ROOT};

const SHARED: &str = "shared";
const VERSION: &str = "version";
/// So many digests fit into a message.
const PINNED_AT_ONCE: usize = 1000;
/// What a worker that stops still stores.
const SETTLE: Duration = Duration::from_secs(10);

static MOVED: Family = Family {
    name: "boxyard_cache_mount_bytes_total",
    help: "Bytes of cache mounts that were brought to a worker (in) or stored by it (out).",
    kind: Kind::Counter,
};

/// The cache mounts of a worker.
pub struct Caches {
    folder: PathBuf,
    bus: Bus,
    store: Store,
    slots: Mutex<HashMap<PathBuf, Arc<Slot>>>,
    /// Steps' ends that are being stored.
    leaving: TaskTracker,
    grown: Arc<Notify>,
}

/// A folder that steps have mounted.
struct Slot {
    folder: PathBuf,
    /// Steps that have it or wait for it, and those whose end is being stored; changed under the lock of [`Caches::slots`].
    users: AtomicUsize,
    /// Those that have it or wait for it.
    steps: AtomicUsize,
    /// Sum of its files' sizes, when they were looked at last.
    bytes: AtomicU64,
    known: Known,
    state: Arc<tokio::sync::Mutex<State>>,
}

/// What is known of a slot's content.
#[derive(Default)]
struct State {
    /// The stored version that it holds, besides what steps have changed since; 0: none.
    version: u64,
    /// What it held when it was the same as a stored version or was stored; none: only the store knows.
    base: Option<Arc<Files>>,
    index: Arc<Index>,
    /// Steps that run with it.
    inside: usize,
    /// How many steps have begun with it.
    begun: u64,
    /// What a step may have changed is not stored yet.
    is_ahead: bool,
}

/// What is told of a cache beside its content.
#[derive(Clone)]
struct Told {
    key: String,
    id: String,
    sharing: String,
    description: String,
}

/// A cache that a step has or waits for.
pub struct Held {
    caches: Arc<Caches>,
    slot: Arc<Slot>,
    told: Told,
    /// Its step is not over.
    running: bool,
    entered: bool,
}

/// A slot that no other step enters, leaves or changes as long as this lives.
pub struct Turn {
    state: OwnedMutexGuard<State>,
    /// Else it is to be made.
    pub has_content: bool,
}

impl Caches {
    /// Keeps what an earlier process of this worker has kept. `grown` is told when there may be more than before.
    pub fn open(folder: PathBuf, bus: Bus, store: Store, grown: Arc<Notify>) -> Result<Arc<Self>, Failure> {
        let doing = || format!("opening {}", folder.display());
        std::fs::create_dir_all(&folder).doing(doing)?;
        let mut slots = HashMap::new();
        for slot in subfolders(&folder).doing(doing)?.iter().map(|key| subfolders(key)) {
            for path in slot.doing(doing)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if name != SHARED && name.parse::<u32>().is_err() {
                    std::fs::remove_dir_all(&path).doing(doing)?;
                    continue;
                }
                let slot = Slot::open(path.clone()).doing(doing)?;
                slots.insert(path, Arc::new(slot));
            }
        }
        Ok(Arc::new(Self { folder, bus, store, slots: Mutex::new(slots), leaving: TaskTracker::new(), grown }))
    }

    /// Takes a cache for a step whose command is `command`; a private one that no other step has.
    pub fn take(self: &Arc<Self>, mount: &proto::StepMount, command: &str) -> Held {
        let key = cache_key(&mount.id, &mount.sharing);
        let all = self.folder.join(&key);
        let mut slots = self.slots();
        let path = match mount.sharing.as_str() {
            PRIVATE => {
                let is_free =
                    |path: &PathBuf| slots.get(path).is_none_or(|slot| slot.steps.load(Ordering::Acquire) == 0);
                (0..).map(|number| all.join(number.to_string())).find(is_free).expect("numbers do not end")
            }
            _ => all.join(SHARED),
        };
        let slot = slots.entry(path.clone()).or_insert_with(|| Arc::new(Slot::new(path))).clone();
        slot.users.fetch_add(1, Ordering::AcqRel);
        slot.steps.fetch_add(1, Ordering::AcqRel);
        let told = Told {
            key,
            id: mount.id.clone(),
            sharing: mount.sharing.clone(),
            description: format!("cached mount {} from exec {command}", mount.target),
        };
        Held { caches: self.clone(), slot, told, running: true, entered: false }
    }

    /// A step has ended: once its process is `gone` what it left is stored, and its locks are given back then. The build goes
    /// on meanwhile.
    pub fn end(&self, held: Vec<Held>, locks: Vec<Claim>, gone: Option<CancellationToken>) {
        // At the end of the worker's process nothing is left to do it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let left = async move {
            if let Some(gone) = gone {
                gone.cancelled().await;
            }
            for held in held {
                held.left().await;
            }
            locks.into_iter().for_each(|lock| lock.end(Ended::Dropped));
        };
        self.leaving.spawn_on(left, &runtime);
    }

    /// The copies that are here.
    pub fn copies(&self) -> Vec<proto::CacheCopy> {
        let slots: Vec<Arc<Slot>> = self.slots().values().cloned().collect();
        let mut copies = Vec::new();
        for slot in slots {
            let in_use = slot.users.load(Ordering::Acquire) > 0;
            let Some(key) = slot.folder.parent().and_then(Path::file_name).and_then(|key| key.to_str()) else {
                continue;
            };
            // One that is being changed is not waited for: that may take as long as its content is on its way.
            let version = slot.state.try_lock().map_or(0, |state| state.version);
            let bytes = slot.bytes.load(Ordering::Acquire);
            copies.push(proto::CacheCopy { key: key.to_owned(), version, bytes, in_use });
        }
        copies
    }

    /// Removes the copies of these caches that no step has. Blocks.
    pub fn forget(&self, keys: &[String]) {
        for key in keys {
            let all = self.folder.join(key);
            let paths: Vec<PathBuf> = self.slots().keys().filter(|path| path.starts_with(&all)).cloned().collect();
            for path in paths {
                self.remove_unused(&path);
            }
            // Goes only when it is empty.
            let _ = std::fs::remove_dir(all);
        }
    }

    /// Sum of all copies' files.
    pub fn bytes(&self) -> u64 {
        self.slots().values().map(|slot| slot.bytes.load(Ordering::Acquire)).sum()
    }

    /// Copies that no step has and whose content is stored: their bytes, and when a step left them last. Blocks.
    pub fn unused(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let slots: Vec<(PathBuf, Arc<Slot>)> =
            self.slots().iter().map(|(path, slot)| (path.clone(), slot.clone())).collect();
        let unused = slots.into_iter().filter(|(_, slot)| slot.users.load(Ordering::Acquire) == 0);
        let stored = unused.filter_map(|(path, slot)| {
            let used = std::fs::metadata(path.join(VERSION)).and_then(|file| file.modified()).ok()?;
            Some((path, slot.bytes.load(Ordering::Acquire), used))
        });
        stored.collect()
    }

    /// Removes a copy unless a step has it; says whether it went. Blocks.
    pub fn remove_unused(&self, path: &Path) -> bool {
        let mut slots = self.slots();
        if slots.get(path).is_none_or(|slot| slot.users.load(Ordering::Acquire) > 0) {
            return false;
        }
        slots.remove(path);
        // Moved while nobody can take it: a step that begins finds no folder.
        let gone = path.with_extension(format!("gone-{}", hex::encode(rand::random::<[u8; 4]>())));
        let moved = std::fs::rename(path, &gone);
        drop(slots);
        let is_gone = moved.is_ok();
        if let Err(error) = moved.and_then(|()| std::fs::remove_dir_all(&gone))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a cache's folder stays");
        }
        is_gone
    }

    /// Waits a moment for what is being stored.
    pub async fn settle(&self) {
        self.leaving.close();
        if tokio::time::timeout(SETTLE, self.leaving.wait()).await.is_err() {
            tracing::warn!("what steps left in caches was not stored in time");
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stored(&self, key: &str, used: bool) -> Result<proto::CacheMount, Failure> {
        let request = proto::CacheMountGet { key: key.to_owned(), used };
        let ask = patiently(|| self.bus.call::<calls::CacheMountGet>(&Target::Gateway, &request));
        Ok(halt::wait(ask).await??)
    }

    /// Keeps blobs under a lease; gives those that are not there.
    async fn pin<'a>(&self, lease: &str, digests: impl Iterator<Item = &'a str>) -> Result<HashSet<String>, Failure> {
        let digests: Vec<String> = digests.map(str::to_owned).collect();
        let mut missing = HashSet::new();
        for some in digests.chunks(PINNED_AT_ONCE) {
            let pin = proto::BlobsPin { lease: lease.to_owned(), digests: some.to_vec() };
            let call = self.bus.call::<calls::BlobsPin>(&Target::Store, &pin);
            missing.extend(halt::wait(call).await??.missing);
        }
        Ok(missing)
    }

    async fn tree(&self, mount: &proto::CacheMount) -> Result<contexts::Tree, Failure> {
        let tree = mount.tree.as_ref().ok_or_else(|| Failure::internal("a cache without content"))?;
        let digest = tree.digest.parse().map_err(Failure::caused)?;
        let get = self.store.get_bytes(&digest, contexts::Tree::MAX_BYTES);
        let bytes = halt::wait(get).await?.map_err(Failure::caused)?;
        contexts::Tree::decode(&bytes).map_err(Failure::caused)
    }
}

impl Slot {
    fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            users: AtomicUsize::new(0),
            steps: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            known: Known::default(),
            state: Arc::default(),
        }
    }

    /// One that an earlier process has left; half-made content goes.
    fn open(folder: PathBuf) -> std::io::Result<Self> {
        for path in entries(&folder)? {
            match path.file_name().and_then(|name| name.to_str()) {
                Some(ROOT | VERSION) => {}
                _ if path.is_dir() && !path.is_symlink() => std::fs::remove_dir_all(path)?,
                _ => std::fs::remove_file(path)?,
            }
        }
        let told = std::fs::read_to_string(folder.join(VERSION)).unwrap_or_default();
        let mut words = told.split_whitespace().map(|word| word.parse().unwrap_or(0));
        let (version, bytes) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        let state = Arc::new(tokio::sync::Mutex::new(State { version, ..State::default() }));
        Ok(Self { bytes: AtomicU64::new(bytes), state, ..Self::new(folder) })
    }

    fn root(&self) -> PathBuf {
        self.folder.join(ROOT)
    }
}

impl Held {
    /// The folder that the step mounts.
    pub fn root(&self) -> PathBuf {
        self.slot.root()
    }

    /// Waits until the slot is nobody else's, with what is stored of it.
    ///
    /// # Errors
    /// Where the gateway does not answer, and for an id of files that the file system does not take.
    pub async fn turn(&self, lease: &str) -> Result<Turn, Failure> {
        let mut state = halt::wait(self.slot.state.clone().lock_owned()).await?;
        // What a step has left in a shared one and nobody has stored yet goes on here: what others have stored since would
        // be laid over it, and is made one with it when this step leaves. Whoever has the lock sees what is stored.
        let goes_on = state.inside > 0 || state.is_ahead && self.told.sharing == SHARED;
        let has_content = goes_on || bring::bring(self, &mut state, lease).await?;
        Ok(Turn { state, has_content })
    }

    /// The step has it from now on.
    pub fn enter(&mut self, mut turn: Turn) {
        if !turn.has_content {
            *turn.state = State { base: Some(Arc::default()), begun: turn.state.begun, ..State::default() };
        }
        turn.state.inside += 1;
        turn.state.begun += 1;
        turn.state.is_ahead = true;
        self.entered = true;
        if let Err(error) = std::fs::remove_file(self.slot.folder.join(VERSION))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a cache may be taken for an older one after a restart");
        }
    }

    fn over(&mut self) {
        if std::mem::take(&mut self.running) {
            self.slot.steps.fetch_sub(1, Ordering::AcqRel);
        }
    }

    async fn left(mut self) {
        self.over();
        if !std::mem::take(&mut self.entered) {
            return;
        }
        if let Err(failure) = leave::leave(&self).await {
            tracing::warn!(%failure, id = self.told.id, "what a step left in a cache is not stored");
        }
        self.caches.bound_known();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.entered && tokio::runtime::Handle::try_current().is_ok() {
            // The step was dropped where it stood. The pin goes on with what is left to do.
            let left = Self {
                caches: self.caches.clone(),
                slot: self.slot.clone(),
                told: self.told.clone(),
                running: std::mem::take(&mut self.running),
                entered: std::mem::take(&mut self.entered),
            };
            self.caches.leaving.spawn(left.left());
            return;
        }
        self.over();
        let slots = self.caches.slots();
        self.slot.users.fetch_sub(1, Ordering::AcqRel);
        drop(slots);
        self.caches.grown.notify_one();
    }
}

fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// Anything else is nobody's.
fn subfolders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect())
}
