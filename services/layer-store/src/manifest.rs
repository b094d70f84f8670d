//! What the store reads in a manifest or an index: what else it names, and what it says of itself. The bytes
//! themselves are kept as they came.

use model::Digest;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    pub schema_version: Option<u64>,
    pub media_type: Option<String>,
    pub artifact_type: Option<String>,
    pub config: Option<Descriptor>,
    pub layers: Vec<Descriptor>,
    pub manifests: Vec<Descriptor>,
    pub subject: Option<Descriptor>,
    pub annotations: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub digest: Digest,
    #[serde(default)]
    pub media_type: String,
    /// A layer with addresses of its own need not be here.
    #[serde(default)]
    pub urls: Vec<String>,
    #[serde(default)]
    pub platform: Option<Platform>,
}

#[derive(Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
}

impl Manifest {
    /// Blobs that must be here when the manifest is: its config, and layers without addresses of their own.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        let layers = self.layers.iter().filter(|layer| layer.urls.is_empty());
        self.config.iter().chain(layers).map(|descriptor| &descriptor.digest)
    }

    /// The child that old clients mean when they ask for an image by tag and get an index.
    pub fn usual_child(&self) -> Option<&Digest> {
        let usual = |platform: &Platform| platform.os == "linux" && platform.architecture == "amd64";
        self.manifests.iter().find(|child| child.platform.as_ref().is_some_and(usual)).map(|child| &child.digest)
    }

    /// What kind of artifact it is (distribution-spec, Listing Referrers).
    pub fn artifact_type(&self) -> Option<&str> {
        let config = self.config.as_ref().map(|config| config.media_type.as_str());
        self.artifact_type.as_deref().or(config).filter(|text| !text.is_empty())
    }
}
