use std::io::Read;

use distribution::Store;
use model::{Digest, ImageRef};
use oci::{Descriptor, ImageConfig, Index, Manifest, media_type};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;

use crate::compression::decompress;
use crate::error::Error;
use crate::import::drain;
use crate::layer::{Stored, Uploader};
use crate::progress::Teller;
use crate::spool::{Spool, blob_name};

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

/// One image of a docker-archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

/// Reads a docker-archive or an OCI archive, packed or not; its entries may come in any order. All that an image needs is
/// in the layer store when this returns.
pub async fn load(
    store: Store,
    stream: streams::Duplex,
    lease: Option<String>,
    teller: Teller,
) -> Result<Vec<proto::LoadedImage>, Error> {
    let uploader = Uploader { store, lease, runtime: Handle::current() };
    let reader = Box::pin(stream.reader.into_async_read());
    tokio::task::spawn_blocking(move || {
        let mut reader = SyncIoBridge::new(reader);
        let images = read(uploader, teller, &mut reader);
        drain(&images, &mut reader);
        images
    })
    .await
    .map_err(|_| Error::Task)?
}

fn read(uploader: Uploader, teller: Teller, archive: &mut impl Read) -> Result<Vec<proto::LoadedImage>, Error> {
    let (_, archive) = decompress(archive).map_err(Error::Read)?;
    let mut loader = Loader { spool: Spool::new(uploader.clone(), teller)?, uploader };
    loader.spool.fill(archive)?;
    loader.images()
}

struct Loader {
    spool: Spool,
    uploader: Uploader,
}

impl Loader {
    fn images(&mut self) -> Result<Vec<proto::LoadedImage>, Error> {
        if self.spool.has("manifest.json") {
            return self.docker_archive();
        }
        if self.spool.has("index.json") {
            let index = Index::parse(&self.spool.bytes("index.json")?)?;
            return self.oci_index(&index, 0);
        }
        Err(Error::Archive("invalid archive: does not contain a manifest.json".to_owned()))
    }

    fn docker_archive(&mut self) -> Result<Vec<proto::LoadedImage>, Error> {
        let listed: Vec<ArchiveImage> = serde_json::from_slice(&self.spool.bytes("manifest.json")?)
            .map_err(|error| Error::Archive(format!("invalid archive: manifest.json: {error}")))?;
        let mut images = Vec::new();
        for ArchiveImage { config, repo_tags, layers, parent } in listed {
            let bytes = self.spool.bytes(&config)?;
            let layers =
                layers.unwrap_or_default().iter().map(|name| self.spool.layer(name)).collect::<Result<Vec<_>, _>>()?;
            let tags = repo_tags.unwrap_or_default().iter().map(|tag| checked_tag(tag)).collect::<Result<_, _>>()?;
            images.push(self.image(&bytes, &layers, tags, parent.unwrap_or_default())?);
        }
        Ok(images)
    }

    fn oci_index(&mut self, index: &Index, depth: usize) -> Result<Vec<proto::LoadedImage>, Error> {
        let mut images: Vec<proto::LoadedImage> = Vec::new();
        for entry in &index.manifests {
            let Some(mut image) = self.oci_entry(entry, depth)? else { continue };
            image.tags.extend(name_of(entry));
            // An index names an image once for each of its tags.
            match images.iter_mut().find(|known| known.id == image.id) {
                Some(known) => known.tags.extend(image.tags),
                None => images.push(image),
            }
        }
        if images.is_empty() && depth == 0 {
            return Err(Error::Archive("invalid archive: it holds no image for this platform".to_owned()));
        }
        Ok(images)
    }

    /// The image that an entry of an index names; none for other platforms and for attestations.
    fn oci_entry(&mut self, entry: &Descriptor, depth: usize) -> Result<Option<proto::LoadedImage>, Error> {
        let is_here = |entry: &Descriptor| {
            entry.platform.as_ref().is_none_or(|platform| {
                platform.os == "linux" && (platform.architecture == model::Platform::host().architecture || depth == 0)
            })
        };
        if !is_here(entry) {
            return Ok(None);
        }
        if media_type::is_index(&entry.media_type) {
            if depth >= MAX_DEPTH {
                return Err(Error::Archive("invalid archive: indexes within indexes".to_owned()));
            }
            let index = Index::parse(&self.spool.blob_bytes(&entry.digest)?)?;
            return Ok(self.oci_index(&index, depth + 1)?.into_iter().next());
        }
        if !media_type::is_manifest(&entry.media_type) {
            return Ok(None);
        }
        let manifest = Manifest::parse(&self.spool.blob_bytes(&entry.digest)?)?;
        if !media_type::is_image_config(&manifest.config.media_type) {
            return Ok(None);
        }
        let config = self.spool.blob_bytes(&manifest.config.digest)?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let stored = self.spool.layer(&blob_name(&layer.digest))?;
            // Stored uncompressed before, a blob is looked at by both of its digests.
            if stored.packed != layer.digest {
                return Err(Error::Archive(format!("invalid archive: blob {} has another digest", layer.digest)));
            }
            layers.push(stored);
        }
        self.image(&config, &layers, Vec::new(), String::new()).map(Some)
    }

    /// Checks the layers against the config's diff ids and stores the config.
    fn image(
        &self,
        config: &[u8],
        layers: &[Stored],
        tags: Vec<String>,
        parent_id: String,
    ) -> Result<proto::LoadedImage, Error> {
        let diff_ids = ImageConfig::parse(config)?.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(Error::Archive(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                diff_ids.len(),
                layers.len()
            )));
        }
        for (number, (wanted, layer)) in diff_ids.iter().zip(layers).enumerate() {
            if *wanted != layer.diff_id {
                return Err(Error::Archive(format!(
                    "invalid diffID for layer {number}: expected \"{wanted}\", got \"{}\"",
                    layer.diff_id
                )));
            }
        }
        let layers = layers.iter().map(Stored::layer).collect::<Result<_, _>>()?;
        let storing = self.uploader.store.put_bytes(config, self.uploader.lease.as_deref());
        let id = self.uploader.runtime.block_on(storing)?.to_string();
        let descriptor = proto::Descriptor {
            media_type: media_type::OCI_CONFIG.to_owned(),
            digest: id.clone(),
            size: config.len() as u64,
        };
        let parent_id = parent_id.parse::<Digest>().map(|parent| parent.to_string()).unwrap_or_default();
        Ok(proto::LoadedImage { id, config: Some(descriptor), layers, tags, parent_id })
    }
}

fn checked_tag(tag: &str) -> Result<String, Error> {
    let reference: ImageRef = tag.parse().map_err(|error| Error::Archive(format!("invalid tag \"{tag}\": {error}")))?;
    if reference.tag().is_none() || reference.digest().is_some() {
        return Err(Error::Archive(format!("invalid tag \"{tag}\"")));
    }
    Ok(reference.familiar())
}

/// The name that containerd and Docker write, else the one that skopeo writes where it is more than a bare tag.
fn name_of(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations.as_ref()?;
    let short = || annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    let name = annotations.get("io.containerd.image.name").or_else(short)?;
    Some(name.parse::<ImageRef>().ok()?.or_latest().familiar())
}
