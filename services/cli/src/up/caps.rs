//! How much builds may keep: flags of `up` for the gateway and the build workers, kept over restarts.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::units;

#[derive(Args, Serialize, Deserialize, Debug, Clone, Copy, Default)]
pub struct Caps {
    /// What results of build steps and cache mounts may take in the layer store, such as 20GB (default: a fifth of its
    /// disk)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    build_cache_bytes: Option<u64>,
    /// What unpacked layers, contexts and cache mounts may take on a machine with build workers (default: half of its
    /// disk)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    worker_cache_bytes: Option<u64>,
}

impl Caps {
    /// These, and where one is not given that of the last start.
    pub fn over(self, kept: Self) -> Self {
        Self {
            build_cache_bytes: self.build_cache_bytes.or(kept.build_cache_bytes),
            worker_cache_bytes: self.worker_cache_bytes.or(kept.worker_cache_bytes),
        }
    }

    pub fn gateway_flags(self) -> Vec<String> {
        flag("--build-cache-bytes", self.build_cache_bytes)
    }

    pub fn worker_flags(self) -> Vec<String> {
        flag("--cache-bytes", self.worker_cache_bytes)
    }

    /// For another `up` with the same.
    pub fn up_flags(self) -> Vec<String> {
        let worker = flag("--worker-cache-bytes", self.worker_cache_bytes);
        [flag("--build-cache-bytes", self.build_cache_bytes), worker].concat()
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let bytes = units::parse_bytes(text)?;
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0).ok_or_else(|| format!("invalid size: '{text}'"))
}

fn flag(name: &str, bytes: Option<u64>) -> Vec<String> {
    bytes.map(|bytes| format!("{name}={bytes}")).into_iter().collect()
}
