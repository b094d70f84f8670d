use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use distribution::Store;
use model::{Digest, ImageRef};
use oci::{Descriptor, Manifest, media_type};
use serde::Serialize;
use streams::Writer;

use crate::error::Error;
use crate::layout::{Layout, Sink, Source};
use crate::spool::blob_name;

/// One image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveImage {
    pub config: String,
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
    /// Diff id to what the blob is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub layer_sources: BTreeMap<String, Descriptor>,
}

impl Sink for Writer {
    async fn send(&mut self, bytes: Bytes) -> Result<(), Error> {
        Ok(Writer::send(self, bytes).await?)
    }
}

/// Writes one tar that is a docker-archive and an OCI layout at once, as Docker 25 and later do.
pub async fn save(store: &Store, mut writer: Writer, images: &[proto::SavedImage]) -> Result<(), Error> {
    match write(store, &mut writer, images).await {
        Ok(()) => Ok(writer.finish().await?),
        Err(error) => {
            // The reader of half an archive must see that it is half.
            let _ = writer.fail(&error.to_string()).await;
            Err(error)
        }
    }
}

async fn write(store: &Store, writer: &mut Writer, images: &[proto::SavedImage]) -> Result<(), Error> {
    let mut pages = Pages::default();
    for image in images {
        pages.add(image)?;
    }
    pages.layout.pages.insert("manifest.json", json(&pages.images));
    if !pages.repositories.is_empty() {
        pages.layout.pages.insert("repositories", json(&pages.repositories));
    }
    pages.layout.write(store, writer).await
}

/// What the archive's pages will say.
#[derive(Default)]
struct Pages {
    layout: Layout,
    images: Vec<ArchiveImage>,
    /// Name to tag to top layer, for readers of before 2016.
    repositories: BTreeMap<String, BTreeMap<String, String>>,
    seen: HashSet<Digest>,
}

impl Pages {
    fn add(&mut self, image: &proto::SavedImage) -> Result<(), Error> {
        let config = descriptor(image.config.as_ref(), media_type::OCI_CONFIG)?;
        let mut layers = Vec::new();
        let mut layer_sources = BTreeMap::new();
        for layer in &image.layers {
            let blob = descriptor(layer.blob.as_ref(), media_type::OCI_LAYER)?;
            layer_sources.insert(layer.diff_id.clone(), blob.clone());
            layers.push(blob);
        }
        for blob in layers.iter().chain([&config]) {
            self.layout.blobs.insert(blob.digest.clone(), Source::Store(blob.size));
        }
        let names = layers.iter().map(|layer| blob_name(&layer.digest)).collect();
        let top = layers.last().map(|layer| layer.digest.hex().to_owned()).unwrap_or_default();
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: config.clone(),
            layers,
            annotations: None,
        };
        let bytes = manifest.to_bytes();
        let digest = Digest::of(&bytes);
        let entry = Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), bytes.len() as u64);
        self.layout.blobs.insert(digest.clone(), Source::Here(bytes));
        for tag in &image.tags {
            let reference = named(tag)?;
            let short = reference.tag().unwrap_or_default().to_owned();
            self.layout.manifests.push(named_entry(&entry, &reference));
            self.repositories.entry(reference.familiar_name()).or_default().insert(short, top.clone());
        }
        if image.tags.is_empty() && self.seen.insert(digest) {
            self.layout.manifests.push(entry);
        }
        let repo_tags = (!image.tags.is_empty()).then(|| image.tags.clone());
        self.images.push(ArchiveImage { config: blob_name(&config.digest), repo_tags, layers: names, layer_sources });
        Ok(())
    }
}

pub fn named(tag: &str) -> Result<ImageRef, Error> {
    let reference: ImageRef = tag.parse().map_err(|error| Error::Archive(format!("invalid tag \"{tag}\": {error}")))?;
    Ok(reference.or_latest())
}

/// An entry of a layout's first page that gives an image its name.
pub fn named_entry(entry: &Descriptor, name: &ImageRef) -> Descriptor {
    let mut annotations = entry.annotations.clone().unwrap_or_default();
    annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
    annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.tag().unwrap_or_default().to_owned());
    Descriptor { annotations: Some(annotations), ..entry.clone() }
}

fn descriptor(from: Option<&proto::Descriptor>, default_type: &str) -> Result<Descriptor, Error> {
    let from = from.ok_or_else(|| Error::Archive("an image without its blobs".to_owned()))?;
    let digest = from.digest.parse().map_err(|error| Error::Archive(format!("{}: {error}", from.digest)))?;
    let media_type = if from.media_type.is_empty() { default_type } else { &from.media_type };
    Ok(Descriptor::new(media_type, digest, from.size))
}

pub fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data always serialises")
}
