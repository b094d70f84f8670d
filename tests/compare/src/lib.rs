//! The same commands on a dockerd and on a Boxyard, and what differs between their outputs.
//!
//! `cases.toml` holds the commands, `differences.toml` the honest differences, each with its reason. Ids and
//! times are replaced by their form before the comparison, so that a wrong form still differs. The comparison
//! itself is `tests/sides.rs`.

mod cases;
mod form;
mod shape;

pub use cases::{Case, Difference, cases, differences};
pub use form::normalised;
pub use shape::missing_paths;
