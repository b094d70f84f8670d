//! The same commands on a dockerd and on a Boxyard, and what differs between their outputs.
//!
//! `cases.toml` and `registry_cases.toml` hold the commands, `differences.toml` the honest differences, each with its
//! reason. Ids and times are replaced by their form before the comparison, so that a wrong form still differs; ids that
//! come from a registry stay, since they are the same on both sides. `dockerfiles` is a corpus of Dockerfiles beside
//! BuildKit. The comparisons are in `tests`.

mod cases;
mod dockerfiles;
mod form;
mod progress;
mod shape;
mod sides;

pub use cases::{Case, Difference, Ids, cases, differences, registry_cases};
pub use dockerfiles::{
    DockerfileCase, DockerfileDifference, DockerfileSides, dockerfile_cases, dockerfile_differences,
};
pub use sides::Sides;
