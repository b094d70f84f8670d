//! The JSON shapes of the Docker Engine API, filled as Docker fills them where a plain value would leave a field out:
//! SDKs index keys that Docker always sends.
//!
//! Pure: no I/O, no knowledge of what stands behind the API. One file a noun.

#![recursion_limit = "512"]

mod container;
mod event;
mod fill;
mod progress;

pub use container::{
    BindOptions, CreateRequest, DeviceMapping, DeviceRate, ExecCreateRequest, HealthConfig, HostConfig, LogConfig,
    Mount, RestartPolicy, TmpfsOptions, Ulimit, VolumeOptions, config_defaults, host_config_defaults,
    image_config_defaults,
};
pub use event::event;
pub use fill::{fill, time};
pub use progress::{aux, message, progress};

/// Version of the API that this speaks.
pub const API_VERSION: &str = "1.51";
/// Oldest version that is understood.
pub const MIN_API_VERSION: &str = "1.24";
