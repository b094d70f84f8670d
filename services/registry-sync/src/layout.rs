//! OCI layouts as one tar (OCI image-spec, Image Layout), which may be an archive of Docker's at the same time.

use std::collections::BTreeMap;

use bytes::Bytes;
use distribution::Store;
use futures::TryStreamExt as _;
use model::Digest;
use oci::{Descriptor, Index, media_type};

use crate::error::Error;
use crate::spool::blob_name;

const BLOCK_BYTES: u64 = 512;

/// Where a tar goes.
pub trait Sink: Send {
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A blob's bytes.
pub enum Source {
    Here(Vec<u8>),
    /// In the layer store, with its size.
    Store(u64),
}

/// All that a layout holds.
#[derive(Default)]
pub struct Layout {
    pub blobs: BTreeMap<Digest, Source>,
    /// The entry page.
    pub manifests: Vec<Descriptor>,
    /// Further files at the top, by name: Docker's pages.
    pub pages: BTreeMap<&'static str, Vec<u8>>,
}

impl Layout {
    /// Writes the tar. All times are zero and everything comes in the order of its names, so that the same layout gives
    /// the same bytes.
    pub async fn write(mut self, store: &Store, sink: &mut impl Sink) -> Result<(), Error> {
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            manifests: self.manifests,
            annotations: None,
        };
        self.pages.insert("index.json", index.to_bytes());
        self.pages.insert("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let mut tar = Tar { sink };
        tar.folder("blobs/").await?;
        tar.folder("blobs/sha256/").await?;
        for (digest, source) in &self.blobs {
            match source {
                Source::Here(bytes) => tar.file(&blob_name(digest), bytes).await?,
                Source::Store(size) => tar.blob(store, digest, *size).await?,
            }
        }
        for (name, page) in &self.pages {
            tar.file(name, page).await?;
        }
        tar.end().await
    }
}

/// A tar written straight to where it goes.
struct Tar<'a, S> {
    sink: &'a mut S,
}

impl<S: Sink> Tar<'_, S> {
    async fn folder(&mut self, name: &str) -> Result<(), Error> {
        self.header(name, tar::EntryType::Directory, 0o755, 0).await
    }

    async fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let size = bytes.len() as u64;
        self.header(name, tar::EntryType::Regular, 0o644, size).await?;
        self.sink.send(Bytes::copy_from_slice(bytes)).await?;
        self.pad(size).await
    }

    async fn blob(&mut self, store: &Store, digest: &Digest, size: u64) -> Result<(), Error> {
        let mut content = store.get(digest).await?;
        self.header(&blob_name(digest), tar::EntryType::Regular, 0o644, size).await?;
        let mut sent = 0u64;
        while let Some(chunk) = content.try_next().await? {
            sent += chunk.len() as u64;
            self.sink.send(chunk).await?;
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
        self.sink.send(Bytes::copy_from_slice(header.as_bytes())).await
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
        self.sink.send(Bytes::from_static(&ZEROS[..count])).await
    }
}
