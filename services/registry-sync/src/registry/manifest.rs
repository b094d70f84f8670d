use model::Digest;
use oci::media_type;
use serde::Serialize;

/// Bytes of the manifest that a push makes (Docker's image manifest, version 2, schema 2). They are the ones that dockerd
/// makes, to the last blank, so that the same image has the same digest wherever it is pushed from.
pub fn bytes(config: (&Digest, u64), layers: &[Blob]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Page<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: Entry<'a>,
        layers: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry<'a> {
        media_type: &'a str,
        size: u64,
        digest: &'a str,
    }
    let page = Page {
        schema_version: 2,
        media_type: media_type::DOCKER_MANIFEST,
        config: Entry { media_type: media_type::DOCKER_CONFIG, size: config.1, digest: config.0.as_str() },
        layers: layers
            .iter()
            .map(|blob| Entry { media_type: blob.media_type, size: blob.size, digest: blob.digest.as_str() })
            .collect(),
    };
    let mut bytes = Vec::new();
    let indented = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, indented);
    page.serialize(&mut writer).expect("plain data always serialises");
    bytes
}

/// A layer as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Docker's own name, [`docker_type`].
    pub media_type: &'static str,
    pub digest: Digest,
    pub size: u64,
}

impl Blob {
    /// What is worth remembering: this blob holds the layer, and the repository shows it.
    pub fn row(&self, diff_id: &Digest, repository: String) -> proto::PackedLayer {
        let blob = proto::Descriptor {
            media_type: self.media_type.to_owned(),
            digest: self.digest.to_string(),
            size: self.size,
        };
        proto::PackedLayer { diff_id: diff_id.to_string(), blob: Some(blob), repository }
    }
}

/// What Docker's manifest calls a layer of this type; none when it has no name for it.
pub fn docker_type(media_type: &str) -> Option<&'static str> {
    match media_type {
        media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(media_type::DOCKER_LAYER_GZIP),
        media_type::OCI_LAYER | media_type::DOCKER_LAYER => Some(media_type::DOCKER_LAYER),
        media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => Some(media_type::DOCKER_LAYER_ZSTD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_dockers() {
        let digest = Digest::of(b"");
        let layer = Blob { media_type: media_type::DOCKER_LAYER_GZIP, digest: digest.clone(), size: 32 };
        let expected = format!(
            "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \
             \"config\": {{\n      \"mediaType\": \"application/vnd.docker.container.image.v1+json\",\n      \"size\": 7,\n      \
             \"digest\": \"{digest}\"\n   }},\n   \"layers\": [\n      {{\n         \
             \"mediaType\": \"application/vnd.docker.image.rootfs.diff.tar.gzip\",\n         \"size\": 32,\n         \
             \"digest\": \"{digest}\"\n      }}\n   ]\n}}"
        );
        assert_eq!(String::from_utf8(bytes((&digest, 7), &[layer])).expect("text"), expected);
    }
}
