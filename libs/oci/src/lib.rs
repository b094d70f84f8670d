//! Manifests, indexes and image configs (OCI image-spec 1.1, with Docker's additions to the config).
//!
//! Entry points: [`ImageConfig::parse`], [`Manifest::parse`], [`Index::parse`]. What a digest names is never written
//! again from these views: whoever passes an image on passes on the bytes that came. [`ImageConfig::to_bytes`] is for
//! new images only. Pure: no I/O.

mod config;
mod error;
mod manifest;
pub mod media_type;

pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use error::Error;
pub use manifest::{Descriptor, Index, Manifest, Platform};
