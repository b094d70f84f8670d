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
    /// With `watch`: kill the process also when the spawning one has not said for so long that it is to go on, be it
    /// stopped or cut off; 0: never. Time that the machine sleeps counts (CLOCK_BOOTTIME).
    #[serde(default)]
    pub deadline_ms: u64,
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
    /// It was killed since its deadline had passed.
    #[serde(default)]
    pub expired: bool,
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
    /// The process has ended, or has not begun.
    NotRunning,
    Failed {
        message: String,
    },
}

/// A frame of Docker's attach stream: 1 byte stream, 3 zero bytes, 4 bytes length (big endian), then the payload.
pub fn frame_header(stream: u8, len: u32) -> [u8; 8] {
    let [a, b, c, d] = len.to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

impl Identity {
    /// Of a living process.
    pub fn of(pid: i32) -> std::io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        // The name in field 2 may hold anything, a parenthesis too; fields count from behind its last one.
        let start_time = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("cannot parse /proc/{pid}/stat")))?;
        Ok(Self { pid, start_time, boot_id })
    }

    /// The same process still lives, and is no zombie.
    pub fn is_alive(&self) -> bool {
        let zombie = || {
            std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).is_ok_and(|stat| {
                stat.rsplit_once(')')
                    .is_some_and(|(_, rest)| matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
            })
        };
        Self::of(self.pid).is_ok_and(|now| now == *self) && !zombie()
    }
}

/// Unix time.
pub fn now_ns() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_more_than_its_pid() {
        let own = Identity::of(std::process::id() as i32).expect("this process lives");
        assert!(own.is_alive());
        assert!(!Identity { start_time: own.start_time + 1, ..own.clone() }.is_alive());
        assert!(!Identity { boot_id: "another boot".into(), ..own }.is_alive());
    }

    #[test]
    fn frames() {
        assert_eq!(frame_header(2, 0x0102_0304), [2, 0, 0, 0, 1, 2, 3, 4]);
    }
}
