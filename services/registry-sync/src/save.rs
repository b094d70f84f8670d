use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use distribution::Store;
use futures::TryStreamExt as _;
use model::{Digest, ImageRef};
use oci::{Descriptor, Index, Manifest, media_type};
use serde::Serialize;
use streams::Writer;

use crate::error::Error;
use crate::spool::blob_name;

const BLOCK_BYTES: u64 = 512;

/// One image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    /// Diff id to what the blob is.
    layer_sources: BTreeMap<String, Descriptor>,
}

/// Writes one tar that is a docker-archive and an OCI layout at once, as Docker 25 and later do. All times are zero and
/// blobs come in the order of their digests, so that the same images give the same bytes.
pub async fn save(store: &Store, writer: Writer, images: &[proto::SavedImage]) -> Result<(), Error> {
    let mut archive = Archive { writer };
    match write(store, &mut archive, images).await {
        Ok(()) => Ok(archive.writer.finish().await?),
        Err(error) => {
            // The reader of half an archive must see that it is half.
            let _ = archive.writer.fail(&error.to_string()).await;
            Err(error)
        }
    }
}

async fn write(store: &Store, archive: &mut Archive, images: &[proto::SavedImage]) -> Result<(), Error> {
    let mut pages = Pages::default();
    for image in images {
        pages.add(image)?;
    }
    archive.folder("blobs/").await?;
    archive.folder("blobs/sha256/").await?;
    for (digest, source) in &pages.blobs {
        match source {
            Source::Here(bytes) => archive.file(&blob_name(digest), bytes).await?,
            Source::Store(size) => archive.blob(store, digest, *size).await?,
        }
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: pages.manifests,
        annotations: None,
    };
    archive.file("index.json", &index.to_bytes()).await?;
    archive.file("manifest.json", &json(&pages.images)).await?;
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).await?;
    if !pages.repositories.is_empty() {
        archive.file("repositories", &json(&pages.repositories)).await?;
    }
    archive.end().await
}

enum Source {
    Here(Vec<u8>),
    /// In the layer store, with its size.
    Store(u64),
}

/// What the archive's pages will say.
#[derive(Default)]
struct Pages {
    blobs: BTreeMap<Digest, Source>,
    manifests: Vec<Descriptor>,
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
            self.blobs.insert(blob.digest.clone(), Source::Store(blob.size));
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
        self.blobs.insert(digest.clone(), Source::Here(bytes));
        for tag in &image.tags {
            let reference: ImageRef =
                tag.parse().map_err(|error| Error::Archive(format!("invalid tag \"{tag}\": {error}")))?;
            let reference = reference.or_latest();
            let short = reference.tag().unwrap_or_default().to_owned();
            let annotations = BTreeMap::from([
                ("io.containerd.image.name".to_owned(), reference.to_string()),
                ("org.opencontainers.image.ref.name".to_owned(), short.clone()),
            ]);
            self.manifests.push(Descriptor { annotations: Some(annotations), ..entry.clone() });
            self.repositories.entry(reference.familiar_name()).or_default().insert(short, top.clone());
        }
        if image.tags.is_empty() && self.seen.insert(digest) {
            self.manifests.push(entry);
        }
        let repo_tags = (!image.tags.is_empty()).then(|| image.tags.clone());
        self.images.push(ArchiveImage { config: blob_name(&config.digest), repo_tags, layers: names, layer_sources });
        Ok(())
    }
}

fn descriptor(from: Option<&proto::Descriptor>, default_type: &str) -> Result<Descriptor, Error> {
    let from = from.ok_or_else(|| Error::Archive("an image without its blobs".to_owned()))?;
    let digest = from.digest.parse().map_err(|error| Error::Archive(format!("{}: {error}", from.digest)))?;
    let media_type = if from.media_type.is_empty() { default_type } else { &from.media_type };
    Ok(Descriptor::new(media_type, digest, from.size))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data always serialises")
}

/// A tar written straight to the stream.
struct Archive {
    writer: Writer,
}

impl Archive {
    async fn folder(&mut self, name: &str) -> Result<(), Error> {
        self.header(name, tar::EntryType::Directory, 0o755, 0).await
    }

    async fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let size = bytes.len() as u64;
        self.header(name, tar::EntryType::Regular, 0o644, size).await?;
        self.writer.send(Bytes::copy_from_slice(bytes)).await?;
        self.pad(size).await
    }

    async fn blob(&mut self, store: &Store, digest: &Digest, size: u64) -> Result<(), Error> {
        let mut content = store.get(digest).await?;
        self.header(&blob_name(digest), tar::EntryType::Regular, 0o644, size).await?;
        let mut sent = 0u64;
        while let Some(chunk) = content.try_next().await? {
            sent += chunk.len() as u64;
            self.writer.send(chunk).await?;
        }
        if sent != size {
            return Err(Error::Archive(format!("blob {digest} has {sent} bytes instead of {size}")));
        }
        self.pad(size).await
    }

    async fn header(&mut self, name: &str, kind: tar::EntryType, mode: u32, size: u64) -> Result<(), Error> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).map_err(Error::Read)?;
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        Ok(self.writer.send(Bytes::copy_from_slice(header.as_bytes())).await?)
    }

    async fn pad(&mut self, size: u64) -> Result<(), Error> {
        let missing = size.next_multiple_of(BLOCK_BYTES) - size;
        self.zeros(missing as usize).await
    }

    async fn end(&mut self) -> Result<(), Error> {
        self.zeros(2 * BLOCK_BYTES as usize).await
    }

    async fn zeros(&mut self, count: usize) -> Result<(), Error> {
        const ZEROS: [u8; 1024] = [0; 1024];
        Ok(self.writer.send(Bytes::from_static(&ZEROS[..count])).await?)
    }
}
