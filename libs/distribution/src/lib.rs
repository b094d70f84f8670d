//! The client of the layer store: blobs by digest over HTTP, as the OCI distribution-spec sends them.
//!
//! Entry point: [`Store`]. Nodes, workers, registry-syncs and the gateway read and write blobs only through it.
//! It must not keep anything: no cache, no file; a clone is a handle to the same connections.
//!
//! Invariants: what [`Store::get`] and its kin hand out is checked against its digest before the last byte counts as
//! read, and a store's refusal keeps its kind and its words (`no space left on device` reaches the user as such).

mod error;
mod store;
mod verify;

pub use error::Error;
/// What [`Store::put`] and [`Store::upload`] send; made from bytes or a stream.
pub use reqwest::Body;
pub use store::{BlobStream, Store};
