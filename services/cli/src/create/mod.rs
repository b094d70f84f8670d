//! The options of `run` and `create`, and the request that they become.

pub mod mounts;
pub mod options;
pub mod ports;
pub mod values;

pub use options::ContainerOptions;
