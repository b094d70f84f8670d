//! A build's layers: fetched before a step needs them, stored before the build may succeed.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use bus::{Bus, Target, calls};
use bytes::Bytes;
use distribution::Store;
use futures::StreamExt as _;
use model::{DiffId, Digest};
use snapshots::Snapshots;
use tokio::sync::{AcquireError, Mutex, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

use crate::archive::decompress;
use crate::failure::Failure;
use crate::halt;
pub use crate::halt::blocking;
use crate::recorder::Upload;
use crate::space::Watched;

/// At most so many layers, and so many bytes of them, may be on this machine only.
const LOCAL_LAYERS: usize = 4;
const LOCAL_MIB: u32 = 1024;
/// Layers that are fetched at once.
const FETCHES: usize = 3;
const BUFFER_BYTES: usize = 256 * 1024;
/// Chunks on their way to the layer store.
const CHUNKS: usize = 4;
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// Where a build's layers come from and go to, under the build's lease.
pub struct Layers {
    bus: Bus,
    pub snapshots: Snapshots,
    pub store: Store,
    pub lease: String,
    /// Who holds the unpacked layers on this machine.
    pub owner: String,
    /// A folder on the disk of the layers.
    disk: PathBuf,
    held: Mutex<Vec<DiffId>>,
    /// Blobs that the lease is known to keep.
    pinned: Mutex<HashSet<Digest>>,
    /// Those on their way into the store; a sender is dropped when its layer's upload ends.
    uploading: Mutex<HashMap<DiffId, watch::Receiver<()>>>,
    slots: Arc<Semaphore>,
    mebibytes: Arc<Semaphore>,
}

/// A layer that a step made, on its way into the store.
pub struct Made {
    pub layer: proto::Layer,
    pub upload: Upload,
}

/// What a step makes that changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// As the classic builder.
    NoLayer,
    /// As BuildKit.
    EmptyLayer,
}

impl Made {
    pub fn diff_id(&self) -> Result<DiffId, Failure> {
        diff_id(&self.layer)
    }
}

struct NewLayer {
    diff_id: DiffId,
    content_bytes: u64,
    tar_bytes: u64,
}

impl Layers {
    pub fn new(bus: Bus, snapshots: Snapshots, store: Store, lease: String, owner: String, disk: PathBuf) -> Self {
        Self {
            bus,
            snapshots,
            store,
            lease,
            owner,
            disk,
            held: Mutex::default(),
            pinned: Mutex::default(),
            uploading: Mutex::default(),
            slots: Arc::new(Semaphore::new(LOCAL_LAYERS)),
            mebibytes: Arc::new(Semaphore::new(LOCAL_MIB as usize)),
        }
    }

    /// Whether the store keeps all these blobs for this build. Each is asked for once, and those of one call at once.
    pub async fn pin(&self, layers: &[proto::Layer]) -> Result<bool, Failure> {
        let mut wanted = layers.iter().map(blob_digest).collect::<Result<HashSet<_>, _>>()?;
        {
            let pinned = self.pinned.lock().await;
            wanted.retain(|digest| !pinned.contains(digest));
        }
        if wanted.is_empty() {
            return Ok(true);
        }
        let digests = wanted.iter().map(Digest::to_string).collect();
        let pin = proto::BlobsPin { lease: self.lease.clone(), digests };
        let missing = self.bus.call::<calls::BlobsPin>(&Target::Store, &pin).await?.missing;
        wanted.retain(|digest| !missing.iter().any(|missing| missing == digest.as_str()));
        self.pinned.lock().await.extend(wanted);
        Ok(missing.is_empty())
    }

    /// Keeps blobs of this build under another lease, too.
    ///
    /// # Errors
    /// When one of them is not in the layer store.
    pub async fn pin_for(&self, lease: &str, layers: &[proto::Layer]) -> Result<(), Failure> {
        let digests = layers.iter().map(|layer| Ok(blob_digest(layer)?.to_string())).collect::<Result<_, Failure>>()?;
        let pin = proto::BlobsPin { lease: lease.to_owned(), digests };
        match self.bus.call::<calls::BlobsPin>(&Target::Store, &pin).await?.missing.as_slice() {
            [] => Ok(()),
            [missing, ..] => Err(Failure::internal(format!("layer {missing} is not in the layer store"))),
        }
    }

    /// Whether [`Layers::pin`] has found these already.
    pub async fn are_pinned(&self, layers: &[proto::Layer]) -> bool {
        let pinned = self.pinned.lock().await;
        layers.iter().all(|layer| blob_digest(layer).is_ok_and(|digest| pinned.contains(&digest)))
    }

    /// Makes sure that the layers are unpacked here, and stay until [`Layers::release`].
    pub async fn fetch(&self, layers: &[proto::Layer]) -> Result<(), Failure> {
        self.hold(&diff_ids(layers)?).await?;
        let mut fetches =
            futures::stream::iter(layers.to_vec()).map(|layer| self.fetch_one(layer)).buffer_unordered(FETCHES);
        while let Some(done) = fetches.next().await {
            done?;
        }
        Ok(())
    }

    async fn fetch_one(&self, layer: proto::Layer) -> Result<(), Failure> {
        let diff_id = diff_id(&layer)?;
        let snapshots = self.snapshots.clone();
        if snapshots.has_layer(&diff_id) {
            return Ok(());
        }
        let (blob, store, disk) = (blob_digest(&layer)?, self.store.clone(), self.disk.clone());
        let runtime = tokio::runtime::Handle::current();
        blocking(move || {
            let open = || {
                tracing::debug!(%blob, "a layer is fetched");
                let reader = runtime.block_on(halt::reader(store.get(&blob))).map_err(std::io::Error::other)?;
                decompress(reader)
            };
            let tar = Watched::new(distribution::when_read(open), &disk);
            snapshots.apply_while(&diff_id, tar, halt::check).map(drop).map_err(Failure::caused)
        })
        .await
    }

    async fn hold(&self, layers: &[DiffId]) -> Result<(), Failure> {
        let mut held = halt::wait(self.held.lock()).await?;
        let new = layers.iter().filter(|layer| !held.contains(layer));
        let all: Vec<DiffId> = held.iter().chain(new).cloned().collect();
        if all.len() == held.len() {
            return Ok(());
        }
        let (snapshots, owner) = (self.snapshots.clone(), self.owner.clone());
        *held = blocking(move || snapshots.hold(&all, &owner).map(|()| all).map_err(Failure::caused)).await?;
        Ok(())
    }

    /// Makes a step's finished upper folder a layer. Its upload goes on in the background; when too much is on this
    /// machine only, this waits.
    pub async fn adopt(
        &self,
        upper: PathBuf,
        below: Vec<DiffId>,
        unchanged: Unchanged,
    ) -> Result<Option<Made>, Failure> {
        let snapshots = self.snapshots.clone();
        let lowers = below.clone();
        let (upper, new) = blocking(move || {
            let mut hash = TarHash::default();
            let diff = snapshots.diff(&upper, &lowers, &mut hash).map_err(Failure::caused)?;
            if diff.empty && unchanged == Unchanged::NoLayer {
                return Ok((upper, None));
            }
            let (digest, tar_bytes) = hash.finish();
            let new = NewLayer { diff_id: DiffId::new(digest), content_bytes: diff.content_bytes, tar_bytes };
            Ok((upper, Some(new)))
        })
        .await?;
        let Some(new) = new else {
            return Ok(None);
        };
        self.hold(std::slice::from_ref(&new.diff_id)).await?;
        let (snapshots, diff_id, content_bytes) = (self.snapshots.clone(), new.diff_id.clone(), new.content_bytes);
        blocking(move || snapshots.adopt(&upper, &diff_id, content_bytes).map_err(Failure::caused)).await?;
        let layer = plain_layer(new.diff_id.as_digest(), new.tar_bytes, new.content_bytes);
        let upload = self.upload(new, below).await?;
        Ok(Some(Made { layer, upload }))
    }

    async fn upload(&self, new: NewLayer, below: Vec<DiffId>) -> Result<Upload, Failure> {
        let mebibytes = u32::try_from(new.tar_bytes >> 20).unwrap_or(LOCAL_MIB).clamp(1, LOCAL_MIB);
        let room = async {
            let slot = self.slots.clone().acquire_owned().await?;
            Ok((slot, self.mebibytes.clone().acquire_many_owned(mebibytes).await?))
        };
        let room = halt::wanted(async { room.await.map_err(|_: AcquireError| Failure::Cancelled) }).await?;
        let (store, snapshots, lease) = (self.store.clone(), self.snapshots.clone(), self.lease.clone());
        let (going, ended) = watch::channel(());
        self.uploading.lock().await.insert(new.diff_id.clone(), ended);
        Ok(AbortOnDropHandle::new(tokio::spawn(async move {
            let _kept = (room, going);
            let digest = new.diff_id.as_digest().clone();
            if store.has(&digest, Some(&lease)).await.map_err(Failure::caused)? == Some(new.tar_bytes) {
                return Ok(());
            }
            let body = tar_body(snapshots, new.diff_id, below);
            store.put(&digest, new.tar_bytes, body, Some(&lease)).await.map_err(Failure::caused)
        })))
    }

    /// Stores what `write` writes as one blob, under the build's lease; gives its digest, its size, and what `write` gave.
    pub async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<T, Failure> + Send + 'static,
    ) -> Result<(Digest, u64, T), Failure> {
        let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(CHUNKS);
        let writing = blocking(move || {
            let channel = ChannelWriter { sender: sender.clone() };
            let mut out = std::io::BufWriter::with_capacity(BUFFER_BYTES, channel);
            let written = write(&mut out).and_then(|made| out.flush().map_err(Failure::caused).map(|()| made));
            if let Err(error) = &written {
                // An error in the body breaks the request off, so that half of it is never taken for the whole.
                let _ = sender.blocking_send(Err(std::io::Error::other(error.to_string())));
            }
            written
        });
        let body = reqwest::Body::wrap_stream(ReceiverStream::new(receiver));
        // What writes ends with the request that takes it.
        let upload = async { self.store.upload(body, Some(&self.lease)).await.map_err(Failure::caused) };
        match tokio::join!(writing, halt::wanted(upload)) {
            (Ok(made), Ok((digest, size))) => Ok((digest, size, made)),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Returns when none of these layers is on its way into the store any more, so that another machine finds it there.
    /// One that did not get there is the build's failure by itself.
    pub async fn uploaded<'a>(&self, layers: impl Iterator<Item = &'a proto::Layer>) -> Result<(), Failure> {
        for layer in layers {
            let diff_id = diff_id(layer)?;
            let going = self.uploading.lock().await.get(&diff_id).cloned();
            if let Some(mut going) = going {
                // Nothing is ever sent: an error is the sender's end.
                halt::wait(going.changed()).await?.ok();
                self.uploading.lock().await.remove(&diff_id);
            }
        }
        Ok(())
    }

    /// Forgets what this build held.
    pub fn release(&self) {
        if let Err(error) = self.snapshots.release(&self.owner) {
            tracing::warn!(%error, owner = %self.owner, "layers stay held");
        }
    }
}

/// The layer's tar again, out of its folder, as a request's body.
fn tar_body(snapshots: Snapshots, diff_id: DiffId, below: Vec<DiffId>) -> reqwest::Body {
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let out = ChannelWriter { sender: sender.clone() };
        let written = snapshots
            .folder(&diff_id)
            .and_then(|folder| snapshots.diff(&folder, &below, std::io::BufWriter::with_capacity(BUFFER_BYTES, out)));
        if let Err(error) = written {
            // A receiver that is gone has its own error.
            let _ = sender.blocking_send(Err(std::io::Error::other(error.to_string())));
        }
    });
    reqwest::Body::wrap_stream(ReceiverStream::new(receiver))
}

/// A blocking writer into a request's body.
pub struct ChannelWriter {
    pub sender: mpsc::Sender<std::io::Result<Bytes>>,
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Hashes and counts, and keeps nothing.
#[derive(Default)]
struct TarHash {
    hash: sha2::Sha256,
    bytes: u64,
}

impl TarHash {
    fn finish(self) -> (Digest, u64) {
        use sha2::Digest as _;
        (Digest::from_sha256(&self.hash.finalize().into()), self.bytes)
    }
}

impl Write for TarHash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        use sha2::Digest as _;
        halt::check()?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A layer that the layer store has as a plain tar.
pub fn plain_layer(diff_id: &Digest, tar_bytes: u64, content_bytes: u64) -> proto::Layer {
    let digest = diff_id.to_string();
    let blob = proto::Descriptor { media_type: LAYER_TYPE.to_owned(), digest: digest.clone(), size: tar_bytes };
    proto::Layer { diff_id: digest, blob: Some(blob), content_bytes }
}

pub fn diff_id(layer: &proto::Layer) -> Result<DiffId, Failure> {
    layer.diff_id.parse().map_err(Failure::caused)
}

pub fn diff_ids(layers: &[proto::Layer]) -> Result<Vec<DiffId>, Failure> {
    layers.iter().map(diff_id).collect()
}

fn blob_digest(layer: &proto::Layer) -> Result<Digest, Failure> {
    let blob = layer.blob.as_ref().ok_or_else(|| Failure::internal("a layer without a blob"))?;
    blob.digest.parse().map_err(Failure::caused)
}

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
