//! What `/boxyard/v1` shows: the state of the whole Boxyard in shapes of its own, which Docker's API has no room for.
//!
//! Everything here only reads. [`shape`] ties each shape to its schema; one file a noun.

mod build_list;
pub mod builds;
pub mod caches;
pub mod containers;
pub mod disk_usage;
pub mod images;
pub mod metrics;
pub mod nodes;
pub mod page;
pub mod services;
pub mod shape;
pub mod summary;
pub mod transfers;
pub mod why_kept;
pub mod workers;
