//! Runs containers with an OCI runtime (crun or runc).
//!
//! [`bundle`] writes what the runtime reads (OCI runtime-spec `config.json`, with Docker's defaults);
//! [`shim`] starts and talks to the one parent process that each container and each exec has.
//! [`cgroup`] freezes and limits a running one; [`wire`] is what both sides of a shim's folder and socket agree on.
//!
//! Must not: mount images, make networks, know the bus or the Engine API.
//! Invariants: a path inside a root file system is hostile and is only opened with `RESOLVE_IN_ROOT`;
//! a process is known by pid, start time and boot id, never by its pid alone.

pub mod bundle;
mod capabilities;
pub mod cgroup;
mod error;
pub mod shim;
pub mod wire;

pub use error::Error;
