//! What every process does alike: logs, figures, the TLS provider, the small runtime, the signal that ends it.
//!
//! A `main` reads: config → [`init`] → connect → build → serve → drain on [`shutdown_signal`].
//! This room knows nothing of the bus; it only holds the flags that name it.

mod args;
mod logs;
pub mod metrics;
mod process;
mod signal;

use std::io::Write as _;

pub use args::{BusArgs, MachineArgs, RegistryArgs, StoreArgs, read_token};
pub use logs::init;
pub use process::{Process, process};
pub use signal::shutdown_signal;

/// Version of this Boxyard, the same in every process.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The runtime of a service: two workers, since a process on a two-core machine gains nothing from more,
/// and every further thread costs idle memory.
///
/// # Errors
/// What the operating system says when threads cannot be started.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(64).enable_all().build()
}

/// Tells the supervisor that this process serves: one line, `ready`, on standard output.
pub fn announce_ready() {
    let mut out = std::io::stdout().lock();
    // A closed standard output means that nobody waits for the line.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
}
