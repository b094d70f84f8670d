//! Content-addressed blobs in a folder, and the leases that keep them.
//!
//! Entry point: [`Blobs`]. This room knows digests and bytes; it must not know images, repositories or HTTP.
//!
//! ```text
//! blobs/<2 hex>/<64 hex>   a blob, complete, checked and on the disk
//! uploads/                 what is being written; emptied at start
//! leases/                  one record and one list of pinned digests a lease
//! ```
//!
//! Invariants:
//! - A file under `blobs/` holds exactly the bytes of its name: written aside, hashed, synced, then renamed.
//! - Names on the disk come from a [`model::Digest`] or from our own random ids, never from a caller's text.
//! - An upload that is dropped before [`Upload::commit`] leaves nothing.
//! - A blob that is pinned, or that was pinned or written since it was marked, is not removed (see [`Blobs::mark`]).
//! - Nothing is written when the disk has less free space than the floor.

mod error;
mod files;
mod leases;
mod space;
mod upload;

pub use error::Error;
pub use files::{Blobs, Marked, Usage};
pub use upload::Upload;
