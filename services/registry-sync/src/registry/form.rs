//! How an image is written for others: Docker's or OCI's documents, and how its layers are packed.

use std::collections::BTreeMap;

use model::Digest;
use oci::{Descriptor, Index, Manifest, media_type};

use super::manifest::{self, Blob};
use crate::error::Error;

/// A fifth of the time of gzip's usual level, for about a twentieth more bytes.
const GZIP_LEVEL: i32 = 1;
const ZSTD_LEVEL: i32 = 3;

/// What becomes of a layer's tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip { level: i32 },
    Zstd { level: i32 },
}

impl Packing {
    /// As people ask for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "uncompressed",
            Self::Gzip { .. } => "gzip",
            Self::Zstd { .. } => "zstd",
        }
    }

    /// Docker's own name for it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => media_type::DOCKER_LAYER,
            Self::Gzip { .. } => media_type::DOCKER_LAYER_GZIP,
            Self::Zstd { .. } => media_type::DOCKER_LAYER_ZSTD,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Form {
    oci: bool,
    pub packing: Packing,
    /// Layers that are packed otherwise already are packed anew.
    force: bool,
    index_annotations: BTreeMap<String, String>,
}

/// A manifest or an index.
pub struct Document {
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

impl Document {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type, self.digest(), self.bytes.len() as u64)
    }
}

impl Form {
    /// # Errors
    /// `InvalidArgument` for a compression that nobody knows.
    pub fn of(form: Option<proto::ImageForm>) -> Result<Self, Error> {
        let proto::ImageForm { oci, compression, level, force, index_annotations } = form.unwrap_or_default();
        let or = |default| if level == 0 { default } else { level };
        let packing = match compression.as_str() {
            "" | "gzip" => Packing::Gzip { level: or(GZIP_LEVEL) },
            "zstd" => Packing::Zstd { level: or(ZSTD_LEVEL) },
            "uncompressed" => Packing::Plain,
            other => return Err(Error::Archive(format!("unsupported layer compression type {other}"))),
        };
        Ok(Self { oci, packing, force, index_annotations: index_annotations.into_iter().collect() })
    }

    /// Whether a layer may stay as it is packed.
    pub fn takes(&self, blob: &Blob) -> bool {
        // Docker's documents have had no name for zstd as long as dockerd wrote them.
        let has_name = self.oci || blob.media_type != media_type::DOCKER_LAYER_ZSTD;
        has_name && (!self.force || blob.media_type == self.packing.media_type())
    }

    /// The manifest of an image, or of what has a config of another type; its layers base first.
    pub fn manifest(
        &self,
        config_type: Option<&str>,
        config: (&Digest, u64),
        (layers, annotations): (&[Blob], BTreeMap<String, String>),
    ) -> Document {
        if !self.oci && annotations.is_empty() {
            let media_type = media_type::DOCKER_MANIFEST;
            return Document { media_type, bytes: manifest::bytes(config, layers) };
        }
        let (media_type, image_type) = match self.oci {
            true => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
            false => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        };
        let layer = |blob: &Blob| {
            let media_type = if self.oci { oci_type(blob.media_type) } else { blob.media_type };
            Descriptor::new(media_type, blob.digest.clone(), blob.size)
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type.to_owned()),
            config: Descriptor::new(config_type.unwrap_or(image_type), config.0.clone(), config.1),
            layers: layers.iter().map(layer).collect(),
            annotations: (!annotations.is_empty()).then_some(annotations),
        };
        Document { media_type, bytes: pretty(&manifest) }
    }

    /// The index of several images.
    pub fn index(&self, manifests: Vec<Descriptor>) -> Document {
        let media_type = if self.oci { media_type::OCI_INDEX } else { media_type::DOCKER_INDEX };
        let annotations = self.index_annotations.clone();
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type.to_owned()),
            manifests,
            annotations: (!annotations.is_empty()).then_some(annotations),
        };
        Document { media_type, bytes: pretty(&index) }
    }
}

/// The entry of an image in its index.
pub fn entry(document: &Document, image: &proto::PlatformImage) -> Result<Descriptor, Error> {
    let platform: model::Platform =
        image.platform.parse().map_err(|error: model::PlatformError| Error::Archive(error.to_string()))?;
    let platform = oci::Platform {
        architecture: platform.architecture,
        os: platform.os,
        os_version: None,
        variant: (!platform.variant.is_empty()).then_some(platform.variant),
    };
    let annotations: BTreeMap<String, String> = image.descriptor_annotations.clone().into_iter().collect();
    let annotations = (!annotations.is_empty()).then_some(annotations);
    Ok(Descriptor { platform: Some(platform), annotations, ..document.descriptor() })
}

fn oci_type(docker_type: &str) -> &'static str {
    match docker_type {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER_GZIP,
    }
}

fn pretty(page: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(page).expect("plain data always serialises")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(oci: bool, compression: &str, force: bool) -> Form {
        let compression = compression.to_owned();
        Form::of(Some(proto::ImageForm { oci, compression, force, ..proto::ImageForm::default() })).expect("known")
    }

    #[test]
    fn documents_call_layers_by_their_own_names() {
        let digest = Digest::of(b"");
        let blob = |media_type| Blob { media_type, digest: digest.clone(), size: 1 };
        let layers = [blob(media_type::DOCKER_LAYER_GZIP), blob(media_type::DOCKER_LAYER)];
        let note = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        for (oci, types) in [
            (true, [media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER]),
            (false, [media_type::DOCKER_LAYER_GZIP, media_type::DOCKER_LAYER]),
        ] {
            let form = form(oci, "", false);
            for notes in [BTreeMap::new(), note.clone()] {
                let document = form.manifest(None, (&digest, 7), (&layers, notes));
                let read = Manifest::parse(&document.bytes).expect("a manifest");
                assert_eq!(read.media_type.as_deref(), Some(document.media_type));
                assert_eq!(read.layers.iter().map(|layer| layer.media_type.as_str()).collect::<Vec<_>>(), types);
            }
            let image = proto::PlatformImage { platform: "linux/arm/v7".to_owned(), ..Default::default() };
            let document = form.manifest(None, (&digest, 7), (&layers, BTreeMap::new()));
            let index = form.index(vec![entry(&document, &image).expect("a platform")]);
            let read = Index::parse(&index.bytes).expect("an index");
            let platform = read.manifests[0].platform.clone().expect("a platform");
            assert_eq!((platform.architecture.as_str(), platform.variant.as_deref()), ("arm", Some("v7")));
        }
    }

    #[test]
    fn what_is_packed_already_may_stay() {
        let blob = |media_type| Blob { media_type, digest: Digest::of(b""), size: 1 };
        let (gzip, zstd) = (blob(media_type::DOCKER_LAYER_GZIP), blob(media_type::DOCKER_LAYER_ZSTD));
        assert!(form(true, "zstd", false).takes(&gzip) && form(true, "", false).takes(&zstd));
        assert!(!form(true, "zstd", true).takes(&gzip) && form(true, "zstd", true).takes(&zstd));
        assert!(!form(false, "", false).takes(&zstd), "Docker's documents cannot name it");
        let unknown = proto::ImageForm { compression: "estargz".to_owned(), ..Default::default() };
        let error = Form::of(Some(unknown)).expect_err("unknown");
        assert_eq!(error.to_string(), "unsupported layer compression type estargz");
    }
}
