//! The spawner's side of a shim: start one, talk to it, find it again after a restart.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use crate::Error;
use crate::wire::ShimConfig;
pub use crate::wire::{ExitStatus, LogConfig, Started};

/// How to start a shim.
#[derive(Clone, Debug)]
pub struct Spawn {
    pub shim_binary: PathBuf,
    /// The shim's own folder (one for a container, one for each exec); made when missing. What an earlier run left
    /// in it is removed, after that run's shim has gone.
    pub dir: PathBuf,
    pub config: ShimConfig,
}

impl Spawn {
    /// Starts the shim and returns when it listens. The container starts at [`Handle::start`], so that clients attached
    /// before miss nothing.
    pub async fn spawn(&self) -> Result<Handle, Error> {
        Err(Error::Lost)
    }
}

/// A shim that lives, or lived. With `watch` the container is killed when this is dropped.
#[derive(Debug)]
pub struct Handle {
    dir: PathBuf,
    _watch: Option<OwnedFd>,
}

impl Handle {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the container (or exec) and waits until it runs. Repeated: the first call's answer.
    pub async fn start(&self) -> Result<Started, Error> {
        Err(Error::Lost)
    }

    /// What [`Handle::start`] answered, if it has; from the shim's folder, so also after a restart.
    pub fn started(&self) -> Option<Started> {
        None
    }

    /// Joins output and, if wanted, stdin. Comes back registered: all that the process writes from now on is sent.
    /// Reading gives Docker's frames (raw bytes with a tty) up to the end of the output, writing is stdin,
    /// `shutdown` of the writing side is its end.
    pub async fn attach(&self, streams: Streams) -> Result<UnixStream, Error> {
        let _ = streams;
        Err(Error::Lost)
    }

    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        let _ = (rows, columns);
        Err(Error::Lost)
    }

    /// Ends the process' stdin.
    pub async fn close_stdin(&self) -> Result<(), Error> {
        Err(Error::Lost)
    }

    /// Signals the process. `Lost` when it has ended.
    pub async fn signal(&self, signal: i32) -> Result<(), Error> {
        let _ = signal;
        Err(Error::Lost)
    }

    /// Waits for the end of the process; at once when it has ended. `Lost` when the shim died without an exit status.
    pub async fn wait_exit(&self) -> Result<ExitStatus, Error> {
        Err(Error::Lost)
    }

    /// Waits until the shim has also deleted the container and left, so that the root can be unmounted.
    pub async fn wait_gone(&self) {}
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Finds the shim of `dir` again, by pid, start time and boot id. `None` when it is gone; then [`exit_status`] tells
/// whether the process' end was recorded.
pub fn adopt(dir: &Path) -> Option<Handle> {
    let _ = dir;
    None
}

/// The recorded end of the process of `dir`.
pub fn exit_status(dir: &Path) -> Option<ExitStatus> {
    let _ = dir;
    None
}
