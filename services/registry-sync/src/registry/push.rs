use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use distribution::registry::{Access, Begun, First, Repository};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use model::{Digest, ImageRef};
use oci::Descriptor;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::form::{self, Document, Form};
use super::manifest::Blob;
use super::pack::BLOCKS_UNDER_WAY;
use super::packed::{Known, Parcel, diff_ids, image};
use super::{Lines, Remote, credentials, named};
use crate::error::Error;

/// Sends one image, or several under an index. A layer that the registry has is not sent, one that was packed before is
/// not packed again.
pub async fn push(
    remote: &Remote,
    request: proto::Push,
    progress: bus::ProgressSender,
) -> Result<proto::PushReply, Error> {
    let name = named(&request.name)?;
    let mut platforms = request.platforms;
    if platforms.is_empty() {
        platforms.push(proto::PlatformImage { image: request.image, ..Default::default() });
    }
    let push = Push {
        parcel: Parcel {
            remote: remote.clone(),
            platforms,
            form: Form::of(request.form)?,
            lease: request.lease,
            known: request.packed,
        },
        name: name.clone(),
        tag: request.tag,
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
    parcel: Parcel,
    name: ImageRef,
    /// Empty: what is pushed has no name but its digest.
    tag: String,
    lines: Lines,
}

/// A layer that the repository has now, and the rows that are new about it.
struct Sent {
    blob: Blob,
    new: Vec<proto::PackedLayer>,
}

impl Push {
    async fn to(&self, repository: &Repository) -> Result<proto::PushReply, Error> {
        // dockerd shows a layer as often as an image has it, the top one first.
        for platform in &self.parcel.platforms {
            for diff_id in diff_ids(image(platform)?)?.iter().rev() {
                self.lines.tell(diff_id.short(), "Preparing").await;
            }
        }
        let once = self.parcel.layers()?;
        let sending: futures::stream::FuturesUnordered<_> = once
            .iter()
            .map(|diff_id| async move { self.send(repository, diff_id).await.map(|sent| (diff_id, sent)) }.boxed())
            .collect();
        let sent: HashMap<&Digest, Sent> = sending.try_collect().await?;
        let mut documents = Vec::new();
        for platform in &self.parcel.platforms {
            documents.push(self.manifest(repository, platform, &sent).await?);
        }
        let top = match documents.len() {
            1 => documents.remove(0),
            _ => {
                let entries = self.entries(repository, &documents).await?;
                self.parcel.form.index(entries)
            }
        };
        let digest = top.digest().to_string();
        let tag = if self.tag.is_empty() { &digest } else { &self.tag };
        repository.put_manifest(tag, top.media_type, &top.bytes).await?;
        Ok(proto::PushReply {
            size: top.bytes.len() as u64,
            packed: sent.into_values().flat_map(|sent| sent.new).collect(),
            digest,
        })
    }

    /// The manifest of one image, whose config the repository has then.
    async fn manifest(
        &self,
        repository: &Repository,
        platform: &proto::PlatformImage,
        sent: &HashMap<&Digest, Sent>,
    ) -> Result<Document, Error> {
        let image = image(platform)?;
        let (config, bytes) = self.parcel.config(image).await?;
        repository.put_blob(&config, &bytes).await?;
        let blob_of = |diff_id: &Digest| Some(sent.get(diff_id)?.blob.clone());
        let layers: Option<Vec<Blob>> = diff_ids(image)?.iter().map(blob_of).collect();
        self.parcel.document(platform, (&config, bytes.len() as u64), &layers.ok_or(Error::Task)?)
    }

    /// Sends the manifests that an index is to name; they are named by nothing else.
    async fn entries(&self, repository: &Repository, documents: &[Document]) -> Result<Vec<Descriptor>, Error> {
        let mut entries = Vec::new();
        for (document, platform) in documents.iter().zip(&self.parcel.platforms) {
            repository.put_manifest(document.digest().as_str(), document.media_type, &document.bytes).await?;
            entries.push(form::entry(document, platform)?);
        }
        Ok(entries)
    }

    async fn send(&self, repository: &Repository, diff_id: &Digest) -> Result<Sent, Error> {
        let id = diff_id.short();
        let _turn = self.lines.turn(id, &self.parcel.remote.uploads).await?;
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
        let (blob, new) = match self.parcel.kept(diff_id).await? {
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
        let mut candidates: Vec<Known> = self.parcel.known(diff_id).collect();
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
        self.parcel.known(diff_id).filter(|known| known.repository != here).find_map(|known| {
            let other: ImageRef = known.repository.parse().ok()?;
            (other.domain() == self.name.domain()).then_some((known.blob, other))
        })
    }

    /// Packs the layer into the layer store. What comes out is sent at the same time, so that the registry need not
    /// wait for the last byte; whatever becomes of that is left in `first`. Of several pushes one packs.
    async fn packed(&self, repository: &Repository, diff_id: &Digest, first: &mut First) -> Result<Blob, Error> {
        let flight = self.parcel.flight(diff_id);
        let mut result = flight.lock().await;
        if let Some(packed) = result.clone() {
            // By another push, under its own lease.
            self.parcel.remote.store.has(&packed.digest, Some(&self.parcel.lease)).await?;
            return Ok(packed);
        }
        let session = match std::mem::replace(first, First::Nothing) {
            First::Begun(session) => session,
            _ => repository.begin_upload().await?,
        };
        let done = Arc::new(AtomicU64::new(0));
        let (copy, copied) = mpsc::channel(BLOCKS_UNDER_WAY);
        let packing = self.parcel.pack(diff_id, done.clone(), copy);
        let appending = session.append(ReceiverStream::new(copied).map(Ok).boxed());
        let both = async { futures::join!(packing, appending) };
        let (packed, appended) = self.with_bar(diff_id.short(), self.parcel.plain_bytes(diff_id), &done, both).await;
        *first = First::Appended(appended);
        Ok(result.insert(packed?).clone())
    }

    async fn upload(&self, repository: &Repository, id: &str, blob: &Blob, first: First) -> Result<(), Error> {
        let done = Arc::new(AtomicU64::new(0));
        let open = || {
            let (store, digest, done) = (self.parcel.remote.store.clone(), blob.digest.clone(), done.clone());
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
        Sent { blob, new }
    }
}
