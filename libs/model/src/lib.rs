//! The nouns that every room shares: ids, digests, image references, error kinds. Pure: no I/O, no async.
//!
//! Parsing checks; a value of one of these types is valid. Words of errors are Docker's where Docker has words.

mod cache_key;
mod digest;
mod error_kind;
mod id;
mod platform;
mod reference;

pub use cache_key::{PRIVATE, cache_key};
pub use digest::{DiffId, Digest, DigestError, Sha256Writer};
pub use error_kind::ErrorKind;
pub use id::{ContainerId, IdError, ImageId, short_id};
pub use platform::{Platform, PlatformError};
pub use reference::{INDEX_SERVER, ImageRef, ReferenceError, is_hex_id, registry_host};
