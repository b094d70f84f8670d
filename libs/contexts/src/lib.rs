//! A client's files, as the layer store holds them and as a client sends them.
//!
//! - A [`Tree`] is one blob: every file with its metadata and the digest of its content, and in which [`Pack`] that lies.
//!   Packs are blobs that hold the contents of many files one after the other; a big file is a pack of its own. The key
//!   of a step that reads files needs the tree alone, and a tree of which one file changed shares all packs but one.
//! - A [`Receiver`] makes a tree of what a client sends by fsutil's protocol (BuildKit's `FileSync/DiffCopy`), and asks
//!   only for content that no [`Known`] tree has.
//!
//! - [`content`] are the messages by which a client gives and takes the blobs of its OCI layouts.
//! - [`of_tar`] makes a tree of a tar, whose contents stay where they are; [`to_tar`] a tar of a tree.
//!
//! Nothing here writes files. Everything that is read here was written by others: each path is checked to be
//! clean and to lie in a folder of the same tree, so that who unpacks a tree never leaves its root.

pub mod content;
mod error;
mod known;
mod of_tar;
mod order;
mod path;
mod receive;
mod stat;
mod switch;
mod to_tar;
mod tree;

pub use error::Error;
pub use known::{Indexed, Known};
pub use of_tar::{of_tar, of_tar_with_root};
pub use order::by_components;
pub use receive::{Limits, Output, Receiver};
pub use stat::{SHA256_XATTR, go_mode_of, stat_of};
pub use switch::{is_folder, parse_bool};
pub use to_tar::to_tar;
pub use tree::{Content, Entry, Kind, Pack, Sha256Digest, Tree};
