//! COPY and ADD: which files are meant, what their content's digest is, and bringing them into the image.
//!
//! Sources lie in the build context or in another image's root; both are hostile trees behind [`crate::rooted::Root`].

pub mod content;
pub mod hash;
pub mod owner;
pub mod sources;
pub mod transfer;
