//! A corpus of Dockerfiles, each built by the BuildKit in dockerd and here, and held side by side.
//!
//! `dockerfiles/*.toml` hold the cases and `dockerfiles/differences.toml` what may differ, each line with its reason.
//! What is compared is text ([`listing`]): the exit code, the file tree by content, mode, owner, links and extended
//! attributes, the image's config and its history; of a build that fails, the line that says why.

mod cases;
mod listing;
mod sides;
mod tree;

pub use cases::{DockerfileCase, DockerfileDifference, dockerfile_cases, dockerfile_differences};
pub use sides::DockerfileSides;
