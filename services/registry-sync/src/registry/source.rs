//! What images and caches are read from: a repository of a registry, or blobs of a build's client.

use bytes::Bytes;
use distribution::registry::{Fetched, Reference, Repository};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use model::ErrorKind;
use oci::{Descriptor, media_type};
use serde::Deserialize;

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
                Ok(Fetched { media_type: type_of(&bytes)?, digest: digest.clone(), bytes })
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

/// What a document says that it is; one that says nothing is known by what it has (OCI image-spec, "mediaType").
fn type_of(bytes: &[u8]) -> Result<String, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    let wrong = |error| Error::Remote { kind: ErrorKind::Corrupt, text: format!("manifest of a client: {error}") };
    let head: Head = serde_json::from_slice(bytes).map_err(wrong)?;
    Ok(match (head.media_type.is_empty(), head.manifests) {
        (false, _) => head.media_type,
        (true, Some(_)) => media_type::OCI_INDEX.to_owned(),
        (true, None) => media_type::OCI_MANIFEST.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_known_by_what_they_say_or_have() {
        for (document, wanted) in [
            (r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#, media_type::DOCKER_MANIFEST),
            (r#"{"schemaVersion":2,"manifests":[]}"#, media_type::OCI_INDEX),
            (r#"{"schemaVersion":2,"config":{}}"#, media_type::OCI_MANIFEST),
        ] {
            assert_eq!(type_of(document.as_bytes()).expect(document), wanted);
        }
        assert_eq!(type_of(b"[").expect_err("no JSON").kind(), ErrorKind::Corrupt);
    }
}
