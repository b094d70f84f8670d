//! Writes an OCI bundle with Docker's defaults.

mod spec;

use std::path::Path;

use serde_json::Value;

use crate::Error;
pub use spec::{
    BundleSpec, Device, ExecSpec, Mount, Namespace, ProcessSpec, Resources, Rlimit, Seccomp, ThrottleDevice,
};

/// Writes `<dir>/config.json`. May be repeated. `InvalidArgument` when the user, a capability or a device isn't known.
pub fn write(dir: &Path, spec: &BundleSpec) -> Result<(), Error> {
    let _ = (dir, spec);
    Err(Error::Invalid("being written".into()))
}

/// The process of an exec in the container of `bundle` (the folder that [`write`] filled), whose root is `rootfs`
/// (of a running container: `/proc/<pid>/root`).
pub fn exec_process(bundle: &Path, rootfs: &Path, spec: &ExecSpec) -> Result<Value, Error> {
    let _ = (bundle, rootfs, spec);
    Err(Error::Invalid("being written".into()))
}
