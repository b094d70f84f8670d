use std::collections::BTreeMap;

use model::Digest;
use serde::{Deserialize, Serialize};

use crate::{Error, media_type};

/// Names a blob (OCI image-spec, Content Descriptors).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, annotations: None, platform: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// One image: its config and its layers, base layer first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Images for several platforms, or the entry page of a layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// # Errors
    /// `InvalidArgument` for what is no manifest of version 2, or calls itself something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(Error::json("manifest"))?;
        check("manifest", manifest.schema_version, manifest.media_type.as_deref(), media_type::is_manifest)?;
        Ok(manifest)
    }

    /// The bytes of a new manifest.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always serialises")
    }
}

impl Index {
    /// # Errors
    /// `InvalidArgument` for what is no index of version 2, or calls itself something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let index: Self = serde_json::from_slice(bytes).map_err(Error::json("index"))?;
        check("index", index.schema_version, index.media_type.as_deref(), media_type::is_index)?;
        Ok(index)
    }

    /// The bytes of a new index.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always serialises")
    }
}

fn check(what: &'static str, version: u32, named: Option<&str>, is_right: fn(&str) -> bool) -> Result<(), Error> {
    if version != 2 {
        return Err(Error::Invalid { what, reason: format!("schema version {version}") });
    }
    match named {
        // One document must not be read as two things (image-spec, mediaType).
        Some(media_type) if !is_right(media_type) => {
            Err(Error::Invalid { what, reason: format!("media type {media_type}") })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_document_is_one_thing() {
        let digest = Digest::of(b"");
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            config: Descriptor::new(media_type::OCI_CONFIG, digest, 0),
            layers: Vec::new(),
            annotations: None,
        };
        assert_eq!(Manifest::parse(&manifest.to_bytes()).expect("itself"), manifest);
        for (media_type, version) in [(media_type::OCI_INDEX, 2), (media_type::OCI_MANIFEST, 1)] {
            let other =
                Manifest { media_type: Some(media_type.to_owned()), schema_version: version, ..manifest.clone() };
            assert!(Manifest::parse(&other.to_bytes()).is_err(), "{media_type} {version}");
        }
        assert!(Index::parse(br#"{"schemaVersion":2,"manifests":[],"mediaType":"application/json"}"#).is_err());
        assert!(Index::parse(br#"{"schemaVersion":2,"manifests":[]}"#).is_ok());
    }
}
