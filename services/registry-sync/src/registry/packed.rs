//! The layers of images as they are handed out: what is known of how they are packed, and the packing itself.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use model::Digest;
use oci::media_type;
use tokio::sync::mpsc;

use super::Remote;
use super::flights::Pack;
use super::form::{Document, Form, Packing};
use super::manifest::{self, Blob};
use super::pack::pack;
use super::pull::MAX_CONFIG_BYTES;
use crate::error::Error;

/// Images of one name, their layers, and how these are to be packed.
pub struct Parcel {
    pub remote: Remote,
    pub platforms: Vec<proto::PlatformImage>,
    pub form: Form,
    pub lease: String,
    pub known: Vec<proto::PackedLayer>,
}

/// A row about a layer, as far as documents can name its blob.
pub struct Known {
    pub blob: Blob,
    pub repository: String,
}

impl Known {
    fn of(row: &proto::PackedLayer, diff_id: &Digest) -> Option<Self> {
        let blob = row.blob.as_ref().filter(|_| row.diff_id == diff_id.as_str())?;
        let media_type = manifest::docker_type(&blob.media_type)?;
        let blob = Blob { media_type, digest: blob.digest.parse().ok()?, size: blob.size };
        Some(Self { blob, repository: row.repository.clone() })
    }
}

/// The image of an entry.
pub fn image(platform: &proto::PlatformImage) -> Result<&proto::SavedImage, Error> {
    platform.image.as_ref().ok_or_else(|| Error::Archive("the call names no image".to_owned()))
}

/// The layers of an image by their diff ids, base layer first.
pub fn diff_ids(image: &proto::SavedImage) -> Result<Vec<Digest>, Error> {
    let parse = |layer: &proto::Layer| {
        layer.diff_id.parse().map_err(|error| Error::Archive(format!("{}: {error}", layer.diff_id)))
    };
    image.layers.iter().map(parse).collect()
}

impl Parcel {
    /// Every layer once: the top layer of the first image first, as dockerd shows them.
    pub fn layers(&self) -> Result<Vec<Digest>, Error> {
        let mut once: Vec<Digest> = Vec::new();
        for platform in &self.platforms {
            for diff_id in diff_ids(image(platform)?)?.into_iter().rev() {
                if !once.contains(&diff_id) {
                    once.push(diff_id);
                }
            }
        }
        Ok(once)
    }

    /// The id of an image's config, and its bytes.
    pub async fn config(&self, image: &proto::SavedImage) -> Result<(Digest, Vec<u8>), Error> {
        let id = image.id.parse::<Digest>().map_err(|error| Error::Archive(format!("{}: {error}", image.id)))?;
        let bytes = self.remote.store.get_bytes(&id, MAX_CONFIG_BYTES).await?;
        Ok((id, bytes))
    }

    /// The manifest of an image, or of what has another config; its layers base first.
    pub fn document(
        &self,
        platform: &proto::PlatformImage,
        config: (&Digest, u64),
        layers: &[Blob],
    ) -> Result<Document, Error> {
        let named = image(platform)?.config.as_ref().map(|config| config.media_type.as_str());
        let other = named.filter(|media_type| !media_type.is_empty() && !media_type::is_image_config(media_type));
        let annotations = platform.annotations.clone().into_iter().collect();
        Ok(self.form.manifest(other, config, (layers, annotations)))
    }

    /// Rows about a layer that this form takes.
    pub fn known(&self, diff_id: &Digest) -> impl Iterator<Item = Known> {
        let rows = self.known.iter().filter_map(move |row| Known::of(row, diff_id));
        rows.filter(|known| self.form.takes(&known.blob))
    }

    /// The layer as it is to be handed out, where the layer store has it so.
    pub async fn kept(&self, diff_id: &Digest) -> Result<Option<Blob>, Error> {
        let plain = (self.form.packing == Packing::Plain).then(|| self.plain(diff_id));
        for blob in self.known(diff_id).map(|known| known.blob).chain(plain) {
            if self.remote.store.has(&blob.digest, Some(&self.lease)).await?.is_some() {
                return Ok(Some(blob));
            }
        }
        Ok(None)
    }

    fn plain(&self, diff_id: &Digest) -> Blob {
        Blob { media_type: Packing::Plain.media_type(), digest: diff_id.clone(), size: self.plain_bytes(diff_id) }
    }

    /// As the layer store holds the layer.
    pub fn plain_bytes(&self, diff_id: &Digest) -> u64 {
        let layers = self.platforms.iter().filter_map(|platform| platform.image.as_ref()).flat_map(|it| &it.layers);
        let layer = layers.into_iter().find(|layer| layer.diff_id == diff_id.as_str());
        layer.and_then(|layer| layer.blob.as_ref()).map_or(0, |blob| blob.size)
    }

    /// Of several who want a layer packed one does it.
    pub fn flight(&self, diff_id: &Digest) -> Arc<Pack> {
        self.remote.flights.pack(&format!("{diff_id} {:?}", self.form.packing))
    }

    /// Packs a layer into the layer store, whose flight the caller holds; `copy` as [`pack`] has it.
    pub async fn pack(
        &self,
        diff_id: &Digest,
        done: Arc<AtomicU64>,
        copy: mpsc::Sender<bytes::Bytes>,
    ) -> Result<Blob, Error> {
        pack(&self.remote.store, (diff_id, self.form.packing), &self.lease, done, copy).await
    }
}
