//! The client of other registries (OCI distribution-spec 1.1; the distribution project's token authentication).
//!
//! Entry point: [`Registries::at_first`], which goes through the addresses where a name's registry may be reached, in
//! the order in which dockerd tries: mirrors, https, plain http where that is allowed. [`Registries::connect`] makes a
//! [`Repository`] of one of them, which reads and writes blobs, manifests and tags.
//!
//! Invariants: credentials go to the registry that they are for and to the token service that it names, never to a
//! mirror, never along a redirect, never into a log. Nothing that a registry sends is read without a bound. What fails
//! for a moment (a broken connection, 429, 5xx) is tried again a few times, what is refused is not; words are Docker's.

mod auth;
mod blobs;
mod challenge;
mod client;
mod endpoints;
mod error;
mod lists;
mod login;
mod manifests;
mod refusal;
mod repository;
mod retry;
mod search;
mod tls;
mod transport;
mod uploads;

pub use auth::Credentials;
pub use blobs::BlobBytes;
pub use client::Registries;
pub use endpoints::{Attempts, Endpoint, Settings};
pub use error::{Error, FromRegistry};
pub use manifests::{Fetched, Reference};
pub use refusal::Refusal;
pub use repository::{Access, Outgoing, Repository};
pub use search::Found;
pub use uploads::{Begun, First, Session};
