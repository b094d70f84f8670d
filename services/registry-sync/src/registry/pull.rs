use std::collections::HashMap;

use bus::Target;
use bus::calls::LayersLookup;
use distribution::registry::{Access, Fetched, Reference};
use futures::{FutureExt as _, TryStreamExt as _};
use model::{DiffId, Digest, ErrorKind, ImageRef};
use oci::{Descriptor, ImageConfig, Index, Manifest, media_type};
use tokio::runtime::Handle;

use super::client::Client;
use super::download::download;
use super::platform::Wanted;
use super::source::Source;
use super::{Lines, Remote, credentials, named, reference, shown, words};
use crate::error::Error;
use crate::layer::Uploader;

pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Overlay takes no more.
const MAX_LAYERS: usize = 127;
/// An index may name an index.
const MAX_DEPTH: usize = 4;

/// Brings one image into the layer store, under the request's lease. Dropped, it leaves only what the lease holds.
pub async fn pull(
    remote: &Remote,
    request: proto::Pull,
    progress: bus::ProgressSender,
) -> Result<proto::PullReply, Error> {
    let reference = reference(&request.tag, &request.digest)?;
    let pull = Pull {
        remote: remote.clone(),
        name: None,
        reference: reference.clone(),
        wanted: Wanted::parse(&request.platform)?,
        lease: request.lease,
        lines: Lines { to: progress },
    };
    if let Some(content) = request.content {
        let client = Client::new(remote.clone(), content);
        return pull.from(&Source::Client(&client, &pull.lease)).await;
    }
    let name = named(&request.name)?;
    let shown = shown(&name, &reference)?;
    let pull = Pull { name: Some(name.clone()), ..pull };
    let credentials = credentials(request.auth);
    let work = |repository| {
        let pull = &pull;
        async move { pull.from(&Source::Registry(&repository)).await }.boxed()
    };
    remote.at(&name, credentials, Access::Pull, work).await.map_err(|error| words::of_pull(error, &shown))
}

pub(super) struct Pull {
    pub remote: Remote,
    /// None where it comes from a client.
    pub name: Option<ImageRef>,
    pub reference: Reference,
    pub wanted: Wanted,
    pub lease: String,
    pub lines: Lines,
}

/// A layer of the image: what its source has, and what it unpacks to.
pub(super) struct Piece {
    pub blob: Descriptor,
    pub diff_id: DiffId,
}

/// A layer that the layer store has now.
pub(super) struct Fetch {
    pub layer: proto::Layer,
    /// It came packed as the manifest says, so the pair of digests is known to be right.
    is_checked: bool,
}

impl Pull {
    async fn from(&self, source: &Source<'_>) -> Result<proto::PullReply, Error> {
        let first = source.manifest(&self.reference).await?;
        let digest = first.digest.clone();
        // dockerd says from where it pulls before it knows whether there is something for this platform.
        self.lines.tell("", "").await;
        let manifest = self.one_image(source, first).await?;
        if !media_type::is_image_config(&manifest.config.media_type) {
            return Err(corrupt(format!("unsupported media type {}", manifest.config.media_type)));
        }
        let config = &manifest.config;
        let bytes = source.blob_bytes(config, MAX_CONFIG_BYTES).await?;
        let pieces = pieces(&manifest, &bytes)?;
        let known = self.known(&pieces).await?;
        let mut missing = Vec::new();
        for piece in &pieces {
            let id = piece.blob.digest.short();
            if known.contains_key(&piece.diff_id) {
                self.lines.tell(id, "Already exists").await;
            } else {
                self.lines.tell(id, "Pulling fs layer").await;
                missing.push(piece);
            }
        }
        let fetching: futures::stream::FuturesUnordered<_> =
            missing.iter().map(|piece| self.fetch(source, piece).boxed()).collect();
        let fetched: HashMap<DiffId, Fetch> = fetching.try_collect().await?;
        self.remote.store.put_bytes(&bytes, Some(&self.lease)).await?;
        let layers: Option<Vec<_>> = pieces
            .iter()
            .map(|p| known.get(&p.diff_id).or_else(|| Some(&fetched.get(&p.diff_id)?.layer)).cloned())
            .collect();
        let is_checked = |piece: &&&Piece| fetched.get(&piece.diff_id).is_some_and(|fetch| fetch.is_checked);
        let packed = missing.iter().filter(is_checked).filter_map(|piece| self.packed(piece)).collect();
        Ok(proto::PullReply {
            digest: digest.to_string(),
            id: config.digest.to_string(),
            config: Some(message(config)),
            layers: layers.ok_or(Error::Task)?,
            packed,
        })
    }

    /// The manifest of one image, through an index or without.
    pub(super) async fn one_image(&self, source: &Source<'_>, mut fetched: Fetched) -> Result<Manifest, Error> {
        for _ in 0..MAX_DEPTH {
            if fetched.is_schema_1() {
                return Err(Error::Remote {
                    kind: ErrorKind::InvalidArgument,
                    text: format!(
                        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been \
                         removed: rebuild {} or push it anew with a current tool",
                        self.name.as_ref().map_or_else(|| "the image".to_owned(), ImageRef::familiar_name)
                    ),
                });
            }
            if !media_type::is_index(&fetched.media_type) {
                return Ok(Manifest::parse(&fetched.bytes)?);
            }
            let index = Index::parse(&fetched.bytes)?;
            let entry = self.wanted.choose(&index)?;
            fetched = source.manifest(&Reference::Digest(entry.digest.clone())).await?;
        }
        Err(corrupt("the index names indexes without an end".to_owned()))
    }

    /// The layers that need not come, since some image has them; the lease holds them from now on.
    async fn known(&self, pieces: &[Piece]) -> Result<HashMap<DiffId, proto::Layer>, Error> {
        let diff_ids = pieces.iter().map(|piece| piece.diff_id.to_string()).collect();
        let request = proto::LayersLookup { diff_ids };
        let reply = self.remote.bus.call::<LayersLookup>(&Target::Gateway, &request).await?;
        let mut known = HashMap::new();
        for layer in reply.layers {
            let Ok(digest) = layer.diff_id.parse::<Digest>() else { continue };
            if self.remote.store.has(&digest, Some(&self.lease)).await?.is_some() {
                known.insert(DiffId::new(digest), layer);
            }
        }
        Ok(known)
    }

    /// Fetches a layer, unless another pull does so already.
    pub(super) async fn fetch(&self, source: &Source<'_>, piece: &Piece) -> Result<(DiffId, Fetch), Error> {
        let (id, blob) = (piece.blob.digest.short(), &piece.blob);
        let flight = self.remote.flights.layer(&format!("{} {}", blob.digest, piece.diff_id));
        let mut result = match flight.try_lock() {
            Ok(result) => result,
            Err(_) => {
                self.lines.tell(id, "Waiting").await;
                flight.lock().await
            }
        };
        if let Some(layer) = result.clone()
            && self.remote.store.has(piece.diff_id.as_digest(), Some(&self.lease)).await?.is_some()
        {
            self.lines.tell(id, "Download complete").await;
            self.lines.tell_pulled(id, &layer).await;
            return Ok((piece.diff_id.clone(), Fetch { layer, is_checked: true }));
        }
        let uploader =
            Uploader { store: self.remote.store.clone(), lease: Some(self.lease.clone()), runtime: Handle::current() };
        if let Some(layer) = self.left_behind(piece, &uploader).await? {
            self.lines.tell(id, "Download complete").await;
            self.lines.tell_pulled(id, &layer).await;
            return Ok((piece.diff_id.clone(), Fetch { layer, is_checked: false }));
        }
        let _turn = self.lines.turn(id, &self.remote.downloads).await?;
        let bytes = source.blob(blob).await?;
        let stored = download(bytes, blob, &piece.diff_id, uploader, &self.lines).await?;
        let layer = stored.layer()?;
        self.lines.tell_bar(id, "Extracting", blob.size, blob.size).await;
        self.lines.tell_pulled(id, &layer).await;
        *result = Some(layer.clone());
        Ok((piece.diff_id.clone(), Fetch { layer, is_checked: true }))
    }

    /// A layer that no image has but the layer store, as a pull leaves it that was killed. Nobody knows the sizes of its
    /// files any more, so it is read once, which is less than to fetch it.
    async fn left_behind(&self, piece: &Piece, uploader: &Uploader) -> Result<Option<proto::Layer>, Error> {
        let digest = piece.diff_id.as_digest().clone();
        if self.remote.store.has(&digest, Some(&self.lease)).await?.is_none() {
            return Ok(None);
        }
        let reader = self.remote.store.get_to_reader(&digest).await?;
        let uploader = uploader.clone();
        let looked = tokio::task::spawn_blocking(move || uploader.look_through(reader, &digest));
        Ok(Some(looked.await.map_err(|_| Error::Task)??.layer()?))
    }

    /// Where a registry shows the layer.
    fn packed(&self, piece: &Piece) -> Option<proto::PackedLayer> {
        let (diff_id, blob) = (piece.diff_id.to_string(), Some(message(&piece.blob)));
        Some(proto::PackedLayer { diff_id, blob, repository: self.name.as_ref()?.full_name() })
    }
}

fn pieces(manifest: &Manifest, config: &[u8]) -> Result<Vec<Piece>, Error> {
    let diff_ids = ImageConfig::parse(config)?.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(corrupt("invalid rootfs in image configuration".to_owned()));
    }
    if diff_ids.len() > MAX_LAYERS {
        return Err(corrupt("max depth exceeded".to_owned()));
    }
    let mut pieces = Vec::new();
    for (blob, diff_id) in manifest.layers.iter().zip(diff_ids) {
        if !media_type::is_layer(&blob.media_type) {
            return Err(corrupt(format!("unsupported media type {}", blob.media_type)));
        }
        pieces.push(Piece { blob: blob.clone(), diff_id });
    }
    Ok(pieces)
}

fn message(blob: &Descriptor) -> proto::Descriptor {
    proto::Descriptor { media_type: blob.media_type.clone(), digest: blob.digest.to_string(), size: blob.size }
}

fn corrupt(text: String) -> Error {
    Error::Remote { kind: ErrorKind::Corrupt, text }
}
