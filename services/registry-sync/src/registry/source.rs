//! What images and caches are read from: a repository of a registry, or blobs of a build's client.

use bytes::Bytes;
use distribution::registry::{Fetched, Reference, Repository};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use oci::Descriptor;

use super::client::{Client, Size};
use crate::error::Error;

/// As for a registry's manifests.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

pub(super) enum Source<'a> {
    Registry(&'a Repository),
    /// Its blobs come into the layer store under the lease.
    Client(&'a Client, &'a str),
}

/// A blob as it comes; its size is checked by the registry's client, or by the gateway, its digest by whoever reads it.
pub(super) type BlobBytes = BoxStream<'static, Result<Bytes, Error>>;

impl Source<'_> {
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, Error> {
        match (self, reference) {
            (Self::Registry(repository), reference) => Ok(repository.manifest(reference).await?),
            (Self::Client(client, lease), Reference::Digest(digest)) => {
                client.bring(digest, Size::AtMost(MAX_DOCUMENT_BYTES), lease).await?;
                let bytes = client.remote.store.get_bytes(digest, MAX_DOCUMENT_BYTES).await?;
                Ok(Fetched::of(bytes)?)
            }
            (Self::Client(..), Reference::Tag(tag)) => {
                Err(Error::Archive(format!("content of a client is named by its digest, not by {tag:?}")))
            }
        }
    }

    pub async fn blob_bytes(&self, blob: &Descriptor, max_bytes: u64) -> Result<Vec<u8>, Error> {
        match self {
            Self::Registry(repository) => Ok(repository.blob_bytes(&blob.digest, blob.size, max_bytes).await?),
            Self::Client(client, lease) => {
                if blob.size > max_bytes {
                    return Err(distribution::Error::TooLarge { digest: blob.digest.clone(), max_bytes }.into());
                }
                client.bring(&blob.digest, Size::Of(blob.size), lease).await?;
                Ok(client.remote.store.get_bytes(&blob.digest, max_bytes).await?)
            }
        }
    }

    pub async fn blob(&self, blob: &Descriptor) -> Result<BlobBytes, Error> {
        match self {
            Self::Registry(repository) => Ok(repository.blob(&blob.digest, blob.size).map_err(Error::from).boxed()),
            Self::Client(client, lease) => {
                client.bring(&blob.digest, Size::Of(blob.size), lease).await?;
                Ok(client.remote.store.get(&blob.digest).await?.map_err(Error::from).boxed())
            }
        }
    }
}
