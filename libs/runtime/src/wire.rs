//! The files of a shim's folder and the requests on its socket. A request is one line of JSON and so is its answer;
//! after the answer to `Attach` the connection carries bytes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a shim is to do; read by it once at its start.
pub const CONFIG_FILE: &str = "shim.json";
/// [`Identity`] of the shim.
pub const IDENTITY_FILE: &str = "shim.id";
/// [`Started`], once the process runs.
pub const STARTED_FILE: &str = "started.json";
/// [`ExitStatus`], once it has ended.
pub const EXIT_FILE: &str = "exit.json";
pub const SOCKET_FILE: &str = "shim.sock";
/// Locked by the shim as long as it lives.
pub const LOCK_FILE: &str = "shim.lock";
/// What the shim itself had to say.
pub const SHIM_LOG_FILE: &str = "shim.log";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShimConfig {
    pub runtime_binary: PathBuf,
    /// Where the OCI runtime keeps its state; the same for a container and its execs.
    pub runtime_root: PathBuf,
    /// Container id, as the OCI runtime knows it.
    pub id: String,
    pub bundle: PathBuf,
    pub tty: bool,
    /// Hold a stdin open for attached clients; else it is empty from the start.
    pub open_stdin: bool,
    /// Close stdin when the first client that wrote to it has gone.
    pub stdin_once: bool,
    pub log: Option<LogConfig>,
    /// Kill the process when the spawning one has died.
    pub watch: bool,
    /// An exec in a running container: its OCI `process` object.
    pub exec: Option<serde_json::Value>,
    /// The container's cgroup, where OOM kills are counted.
    pub cgroup_path: String,
    /// Size of a tty at its start, rows and columns; 0: not set.
    pub tty_size: (u16, u16),
}

/// A json-file log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogConfig {
    pub path: PathBuf,
    /// Of one file; 0: never rotated.
    pub max_bytes: u64,
    /// 1 or more, the current one included: `path`, `path.1`, ...
    pub max_files: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks since boot, field 22 of /proc/<pid>/stat.
    pub start_time: u64,
    pub boot_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Of the container's process, on this machine.
    pub pid: i32,
    /// Unix time.
    pub started_at_ns: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// 128 + signal for a killed process.
    pub code: i32,
    pub oom: bool,
    /// Unix time.
    pub finished_at_ns: i64,
    /// Why the start failed; empty when it did not.
    #[serde(default)]
    pub error: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    Go,
    Attach {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Resize {
        rows: u16,
        columns: u16,
    },
    CloseStdin,
    Signal {
        signal: i32,
    },
    /// Answered when the process has ended.
    Wait,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Answer {
    Done,
    Started(Started),
    Exited(ExitStatus),
    /// The start failed.
    StartFailed {
        message: String,
        code: i32,
    },
    Failed {
        message: String,
    },
}
