use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use distribution::registry::{Access, Begun, First, Repository};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use model::{Digest, ImageRef};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::manifest::{self, Blob};
use super::pack::{BLOCKS_UNDER_WAY, pack};
use super::pull::MAX_CONFIG_BYTES;
use super::{Lines, Remote, credentials, named};
use crate::error::Error;

/// Sends one image. A layer that the registry has is not sent, one that was packed before is not packed again.
pub async fn push(
    remote: &Remote,
    request: proto::Push,
    progress: bus::ProgressSender,
) -> Result<proto::PushReply, Error> {
    let name = named(&request.name)?;
    let image = request.image.ok_or_else(|| Error::Archive("the call names no image".to_owned()))?;
    let push = Push {
        remote: remote.clone(),
        name: name.clone(),
        tag: request.tag,
        image,
        lease: request.lease,
        known: request.packed,
        lines: Lines { to: progress },
    };
    let credentials = credentials(request.auth);
    let work = |repository| {
        let push = &push;
        async move { push.to(&repository).await }.boxed()
    };
    remote.at(&name, credentials, Access::Push, work).await.map_err(plain)
}

/// Of a push that nobody speaks for, dockerd says only that, without the request that showed it.
fn plain(error: Error) -> Error {
    match error {
        Error::Registry(distribution::registry::Error::Token { source, .. })
            if matches!(*source, distribution::registry::Error::NoCredentials) =>
        {
            Error::Registry(*source)
        }
        other => other,
    }
}

struct Push {
    remote: Remote,
    name: ImageRef,
    tag: String,
    image: proto::SavedImage,
    lease: String,
    known: Vec<proto::PackedLayer>,
    lines: Lines,
}

/// A layer that the repository has now, and the rows that are new about it.
struct Sent {
    diff_id: String,
    blob: Blob,
    new: Vec<proto::PackedLayer>,
}

impl Push {
    async fn to(&self, repository: &Repository) -> Result<proto::PushReply, Error> {
        let diff_ids = self.diff_ids()?;
        // dockerd shows the top layer first.
        for diff_id in diff_ids.iter().rev() {
            self.lines.tell(diff_id.short(), "Preparing").await;
        }
        let mut once: Vec<&Digest> = Vec::new();
        for diff_id in diff_ids.iter().rev() {
            if !once.contains(&diff_id) {
                once.push(diff_id);
            }
        }
        let sending: futures::stream::FuturesUnordered<_> =
            once.iter().map(|diff_id| self.send(repository, diff_id).boxed()).collect();
        let sent: Vec<Sent> = sending.try_collect().await?;
        let config =
            self.image.id.parse::<Digest>().map_err(|error| Error::Archive(format!("{}: {error}", self.image.id)))?;
        let bytes = self.remote.store.get_bytes(&config, MAX_CONFIG_BYTES).await?;
        repository.put_blob(&config, &bytes).await?;
        let blob_of =
            |diff_id: &Digest| sent.iter().find(|sent| sent.diff_id == diff_id.as_str()).map(|sent| sent.blob.clone());
        let layers: Vec<Blob> = diff_ids.iter().map(blob_of).collect::<Option<_>>().ok_or(Error::Task)?;
        let manifest = manifest::bytes((&config, bytes.len() as u64), &layers);
        repository.put_manifest(&self.tag, oci::media_type::DOCKER_MANIFEST, &manifest).await?;
        Ok(proto::PushReply {
            digest: Digest::of(&manifest).to_string(),
            size: manifest.len() as u64,
            packed: sent.into_iter().flat_map(|sent| sent.new).collect(),
        })
    }

    fn diff_ids(&self) -> Result<Vec<Digest>, Error> {
        let parse = |layer: &proto::Layer| {
            layer.diff_id.parse().map_err(|error| Error::Archive(format!("{}: {error}", layer.diff_id)))
        };
        self.image.layers.iter().map(parse).collect()
    }

    async fn send(&self, repository: &Repository, diff_id: &Digest) -> Result<Sent, Error> {
        let id = diff_id.short();
        let _turn = self.lines.turn(id, &self.remote.uploads).await?;
        for known in self.candidates(diff_id) {
            if repository.has_blob(&known.blob.digest).await?.is_some() {
                self.lines.tell(id, "Layer already exists").await;
                return Ok(self.sent(diff_id, known.blob, Vec::new()));
            }
        }
        let mut first = First::Nothing;
        if let Some((known, from)) = self.elsewhere(diff_id) {
            match repository.mount(&known.digest, from.path()).await? {
                Begun::Mounted => {
                    self.lines.tell(id, &format!("Mounted from {}", from.path())).await;
                    return Ok(self.sent(diff_id, known, Vec::new()));
                }
                Begun::Session(begun) => first = First::Begun(begun),
            }
        }
        let (blob, new) = match self.kept(diff_id).await? {
            Some(blob) => (blob, Vec::new()),
            None => {
                let blob = self.packed(repository, diff_id, &mut first).await?;
                let new = vec![blob.row(diff_id, String::new())];
                if repository.has_blob(&blob.digest).await?.is_some() {
                    self.lines.tell(id, "Layer already exists").await;
                    return Ok(self.sent(diff_id, blob, new));
                }
                (blob, new)
            }
        };
        self.upload(repository, id, &blob, first).await?;
        self.lines.tell(id, "Pushed").await;
        Ok(self.sent(diff_id, blob, new))
    }

    /// Blobs of the layer that the registry may have, those of this repository first.
    fn candidates(&self, diff_id: &Digest) -> Vec<Known> {
        let mut candidates: Vec<Known> = self.known.iter().filter_map(|row| Known::of(row, diff_id)).collect();
        let here = self.name.full_name();
        candidates.sort_by_key(|known| known.repository != here);
        let mut seen = Vec::new();
        candidates.retain(|known| {
            let is_new = !seen.contains(&known.blob.digest);
            seen.push(known.blob.digest.clone());
            is_new
        });
        candidates
    }

    /// The layer in another repository of the same registry.
    fn elsewhere(&self, diff_id: &Digest) -> Option<(Blob, ImageRef)> {
        let here = self.name.full_name();
        self.known.iter().filter_map(|row| Known::of(row, diff_id)).filter(|known| known.repository != here).find_map(
            |known| {
                let other: ImageRef = known.repository.parse().ok()?;
                (other.domain() == self.name.domain()).then_some((known.blob, other))
            },
        )
    }

    /// As the layer store holds the layer.
    fn plain_bytes(&self, diff_id: &Digest) -> u64 {
        let layer = self.image.layers.iter().find(|layer| layer.diff_id == diff_id.as_str());
        layer.and_then(|layer| layer.blob.as_ref()).map_or(0, |blob| blob.size)
    }

    /// The packed layer, where the layer store has it.
    async fn kept(&self, diff_id: &Digest) -> Result<Option<Blob>, Error> {
        for known in self.candidates(diff_id) {
            if self.remote.store.has(&known.blob.digest, Some(&self.lease)).await?.is_some() {
                return Ok(Some(known.blob));
            }
        }
        Ok(None)
    }

    /// Packs the layer into the layer store. What comes out is sent at the same time, so that the registry need not
    /// wait for the last byte; whatever becomes of that is left in `first`. Of several pushes one packs.
    async fn packed(&self, repository: &Repository, diff_id: &Digest, first: &mut First) -> Result<Blob, Error> {
        let flight = self.remote.flights.pack(diff_id.as_str());
        let mut result = flight.lock().await;
        if let Some(packed) = result.clone() {
            // By another push, under its own lease.
            self.remote.store.has(&packed.digest, Some(&self.lease)).await?;
            return Ok(packed);
        }
        let session = match std::mem::replace(first, First::Nothing) {
            First::Begun(session) => session,
            _ => repository.begin_upload().await?,
        };
        let done = Arc::new(AtomicU64::new(0));
        let (copy, copied) = mpsc::channel(BLOCKS_UNDER_WAY);
        let packing = pack(&self.remote.store, diff_id, &self.lease, done.clone(), copy);
        let appending = session.append(ReceiverStream::new(copied).map(Ok).boxed());
        let both = async { futures::join!(packing, appending) };
        let (packed, appended) = self.with_bar(diff_id.short(), self.plain_bytes(diff_id), &done, both).await;
        *first = First::Appended(appended);
        Ok(result.insert(packed?).clone())
    }

    async fn upload(&self, repository: &Repository, id: &str, blob: &Blob, first: First) -> Result<(), Error> {
        let done = Arc::new(AtomicU64::new(0));
        let open = || {
            let (store, digest, done) = (self.remote.store.clone(), blob.digest.clone(), done.clone());
            async move {
                done.store(0, Ordering::Relaxed);
                let bytes = store.get(&digest).await?;
                let counted = bytes.inspect_ok(move |chunk| {
                    done.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                });
                Ok(counted.map_err(std::io::Error::other).boxed())
            }
        };
        let sending = repository.upload(&blob.digest, first, open);
        Ok(self.with_bar(id, blob.size, &done, sending).await?)
    }

    /// Shows how far `work` has come until it ends.
    async fn with_bar<T>(&self, id: &str, total: u64, done: &AtomicU64, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {
                    self.lines.tell_bar(id, "Pushing", done.load(Ordering::Relaxed), total).await;
                }
            }
        }
    }

    /// The repository shows the blob now, which is worth a row.
    fn sent(&self, diff_id: &Digest, blob: Blob, mut new: Vec<proto::PackedLayer>) -> Sent {
        new.push(blob.row(diff_id, self.name.full_name()));
        Sent { diff_id: diff_id.to_string(), blob, new }
    }
}

/// A row about a layer, as far as Docker's manifest can name its blob.
struct Known {
    blob: Blob,
    repository: String,
}

impl Known {
    fn of(row: &proto::PackedLayer, diff_id: &Digest) -> Option<Self> {
        let blob = row.blob.as_ref().filter(|_| row.diff_id == diff_id.as_str())?;
        let media_type = manifest::docker_type(&blob.media_type)?;
        let blob = Blob { media_type, digest: blob.digest.parse().ok()?, size: blob.size };
        Some(Self { blob, repository: row.repository.clone() })
    }
}
