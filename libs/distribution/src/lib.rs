//! Clients of what speaks the OCI distribution-spec: blobs and manifests over HTTP.
//!
//! - [`Store`], the client of our own layer store. Nodes, workers, registry-syncs and the gateway read and write blobs
//!   only through it.
//! - [`registry`], the client of every other registry, with its names, mirrors, TLS and logins.
//!
//! This room must not keep anything: no cache, no file, no credentials beyond one call; a clone is a handle to the same
//! connections.
//!
//! Invariants: what [`Store::get`] and its kin hand out is checked against its digest before the last byte counts as
//! read, and a store's refusal keeps its kind and its words (`no space left on device` reaches the user as such).

mod error;
mod reader;
pub mod registry;
mod store;
mod verify;

pub use error::Error;
pub use reader::{reader, when_read};
/// What [`Store::put`] and [`Store::upload`] send; made from bytes or a stream.
pub use reqwest::Body;
pub use store::{BlobStream, Store};
