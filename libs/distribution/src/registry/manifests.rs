use std::fmt;

use bytes::Bytes;
use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE};
use model::Digest;
use oci::media_type;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::repository::{Call, read_bounded};
use super::retry::retried;
use super::{Error, Repository};

/// distribution-spec, Pushing Manifests: larger ones need not be taken by anybody.
const MAX_BYTES: u64 = 4 << 20;

const ACCEPTED: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

/// Docker's first two kinds of manifest, which name no config.
pub(super) const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";

/// Which manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Tag(String),
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => f.write_str(digest.as_str()),
        }
    }
}

/// A manifest or an index as it came, checked against its digest.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub media_type: String,
}

impl Fetched {
    /// A document that no registry's header describes: it is what it says, or what its shape is (OCI image-spec,
    /// "mediaType").
    ///
    /// # Errors
    /// `Lie` for what is no manifest and no index, or is another than it says.
    pub fn of(bytes: Vec<u8>) -> Result<Self, Error> {
        Ok(Self { media_type: media_type_of("", &bytes)?, digest: Digest::of(&bytes), bytes })
    }

    /// One of Docker's first kinds of manifest, which nobody reads any more.
    pub fn is_schema_1(&self) -> bool {
        self.media_type == SCHEMA_1
    }
}

impl Repository {
    /// # Errors
    /// `TooLarge` above 4 MiB; `Lie` when digest or media type are not those that the registry claims.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, Error> {
        let call = Call::new(Method::GET, self.url(&format!("manifests/{reference}"))).header(ACCEPT, ACCEPTED);
        retried(|| async {
            let response = self.ask(&call).await?;
            let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
            let named = text("content-type").unwrap_or_default();
            let claimed = text("docker-content-digest").and_then(|digest| digest.parse::<Digest>().ok());
            let bytes = read_bounded(response, "GET", &call.url, MAX_BYTES).await?;
            let digest = Digest::of(&bytes);
            let wanted = match reference {
                Reference::Digest(wanted) => Some(wanted.clone()),
                Reference::Tag(_) => None,
            };
            if let Some(wanted) = [wanted, claimed].into_iter().flatten().find(|wanted| *wanted != digest) {
                return Err(Error::Lie(format!("manifest verification failed for digest {wanted}")));
            }
            let media_type = media_type_of(&named, &bytes)?;
            Ok(Fetched { bytes, digest, media_type })
        })
        .await
    }

    /// Stores a manifest under a tag; may be repeated.
    pub async fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        let call = Call {
            body: Bytes::copy_from_slice(bytes),
            ..Call::new(Method::PUT, self.url(&format!("manifests/{tag}"))).header(CONTENT_TYPE, media_type)
        };
        retried(|| self.ask(&call)).await.map(drop)
    }
}

/// What a document is: by the registry's header, by its own words, and by its shape; these must not contradict.
fn media_type_of(header: &str, bytes: &[u8]) -> Result<String, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<IgnoredAny>,
        config: Option<IgnoredAny>,
    }
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|error| Error::Lie(format!("the manifest is none: {error}")))?;
    if shape.schema_version == 1 {
        return Ok(SCHEMA_1.to_owned());
    }
    let header = header.split(';').next().unwrap_or_default().trim();
    let own = shape.media_type.as_deref().unwrap_or_default();
    if media_type::is_document(header) && !own.is_empty() && header != own {
        return Err(Error::Lie(format!("mediaType in manifest should be '{header}' not '{own}'")));
    }
    let named = if media_type::is_document(header) { header } else { own };
    match (named, shape.manifests.is_some(), shape.config.is_some()) {
        ("", true, false) => Ok(media_type::OCI_INDEX.to_owned()),
        ("", false, true) => Ok(media_type::OCI_MANIFEST.to_owned()),
        (named, manifests, config) if media_type::is_index(named) && manifests && !config => Ok(named.to_owned()),
        (named, manifests, config) if media_type::is_manifest(named) && config && !manifests => Ok(named.to_owned()),
        (named, ..) if media_type::is_document(named) => Err(Error::Lie(format!("the manifest is no {named}"))),
        ("", ..) => Err(Error::Lie("unsupported manifest format".to_owned())),
        (named, ..) => Err(Error::Lie(format!("unsupported manifest media type: {named}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_one_thing() {
        let (docker, index) = (media_type::DOCKER_MANIFEST, media_type::OCI_INDEX);
        let manifest = |own: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{own}","config":{{}},"layers":[]}}"#);
        for (header, body, expected) in [
            (docker, manifest(docker), Ok(docker)),
            ("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8", manifest(docker), Ok(docker)),
            ("text/plain", manifest(docker), Ok(docker)),
            ("", r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), Ok(index)),
            ("", r#"{"schemaVersion":2,"config":{}}"#.to_owned(), Ok(media_type::OCI_MANIFEST)),
            (index, manifest(docker), Err("mediaType in manifest should be")),
            (index, r#"{"schemaVersion":2,"config":{}}"#.to_owned(), Err("is no application/vnd.oci.image.index")),
            (index, r#"{"schemaVersion":2,"config":{},"manifests":[]}"#.to_owned(), Err("is no ")),
            ("", manifest("application/x"), Err("unsupported manifest media type: application/x")),
            ("", r#"{"schemaVersion":2}"#.to_owned(), Err("unsupported manifest format")),
            ("", "<html>".to_owned(), Err("the manifest is none")),
            ("", r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), Ok(SCHEMA_1)),
        ] {
            match (media_type_of(header, body.as_bytes()), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{header} {body}"),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{header} {body}: {error}"),
                (found, _) => panic!("{header} {body}: {found:?}"),
            }
        }
    }
}
