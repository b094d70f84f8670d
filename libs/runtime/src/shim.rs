//! The spawner's side of a shim: start one, talk to it, find it again after a restart.

use std::fs::File;
use std::io::ErrorKind as IoKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::Mode;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::Error;
use crate::wire::{
    Answer, CONFIG_FILE, EXIT_FILE, IDENTITY_FILE, Identity, LOCK_FILE, Request, SHIM_LOG_FILE, SOCKET_FILE,
    STARTED_FILE,
};
pub use crate::wire::{ExitStatus, LogConfig, ShimConfig, Started};

/// An answer is one short line.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

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
        let doing = || format!("cannot prepare {}", self.dir.display());
        std::fs::create_dir_all(&self.dir).map_err(Error::io(doing()))?;
        gone(&self.dir).await;
        for name in [IDENTITY_FILE, STARTED_FILE, EXIT_FILE, SOCKET_FILE] {
            match std::fs::remove_file(self.dir.join(name)) {
                Err(e) if e.kind() != IoKind::NotFound => return Err(Error::io(doing())(e)),
                _ => {}
            }
        }
        let config = serde_json::to_vec(&self.config).map_err(|e| Error::io(doing())(e.into()))?;
        std::fs::write(self.dir.join(CONFIG_FILE), config).map_err(Error::io(doing()))?;
        let log = File::create(self.dir.join(SHIM_LOG_FILE)).map_err(Error::io(doing()))?;
        let mut command = Command::new(&self.shim_binary);
        command.arg(&self.dir).env_clear().stdout(Stdio::piped()).stderr(log);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let watch = if self.config.watch {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
                .map_err(|e| Error::io("cannot make a pipe")(e.into()))?;
            command.stdin(Stdio::from(read));
            Some(write)
        } else {
            command.stdin(Stdio::null());
            None
        };
        let mut child = command.spawn().map_err(Error::io(format!("cannot run {}", self.shim_binary.display())))?;
        // Ready is one byte; an end without it is a failure, and why stands in the shim's log.
        let mut ready = [0];
        let listens = match child.stdout.take() {
            Some(mut stdout) => stdout.read(&mut ready).await.is_ok_and(|n| n == 1),
            None => false,
        };
        tokio::spawn(async move { child.wait().await });
        if !listens {
            let why = std::fs::read_to_string(self.dir.join(SHIM_LOG_FILE)).unwrap_or_default();
            return Err(Error::Shim(why.trim().to_owned()));
        }
        Ok(Handle { dir: self.dir.clone(), watch })
    }
}

/// A shim that lives, or lived. With `watch` the container is killed when this is dropped.
#[derive(Debug)]
pub struct Handle {
    dir: PathBuf,
    /// The shim sees its end, and each word.
    watch: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Handle {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Of a shim that is not there any more: its recorded end can be asked for, all else is `Lost`.
    pub fn gone(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), watch: None }
    }

    /// Starts the container (or exec) and waits until it runs. Repeated: the first call's answer.
    pub async fn start(&self) -> Result<Started, Error> {
        match self.call(&Request::Go).await?.1 {
            Answer::Started(started) => Ok(started),
            other => Err(unexpected(other)),
        }
    }

    /// What [`Handle::start`] answered, if it has; from the shim's folder, so also after a restart.
    pub fn started(&self) -> Option<Started> {
        read(&self.dir.join(STARTED_FILE))
    }

    /// Says that the process is to go on: its deadline begins anew.
    pub fn go_on(&self) {
        if let Some(watch) = &self.watch {
            // A shim that is gone hears nothing, and a full pipe says enough.
            let _ = nix::unistd::write(watch, b"+");
        }
    }

    /// Joins output and, if wanted, stdin. Comes back registered: all that the process writes from now on is sent.
    /// Reading gives Docker's frames (raw bytes with a tty) up to the end of the output, writing is stdin,
    /// `shutdown` of the writing side is its end. A client that takes nothing for 5 s while 1 MiB waits is cut off.
    pub async fn attach(&self, streams: Streams) -> Result<UnixStream, Error> {
        let Streams { stdin, stdout, stderr } = streams;
        match self.call(&Request::Attach { stdin, stdout, stderr }).await? {
            (stream, Answer::Done) => Ok(stream),
            (_, other) => Err(unexpected(other)),
        }
    }

    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.order(&Request::Resize { rows, columns }).await
    }

    /// Ends the process' stdin.
    pub async fn close_stdin(&self) -> Result<(), Error> {
        self.order(&Request::CloseStdin).await
    }

    /// Signals the process. `Lost` when it has ended.
    pub async fn signal(&self, signal: i32) -> Result<(), Error> {
        self.order(&Request::Signal { signal }).await
    }

    /// Waits for the end of the process; at once when it has ended. `Lost` when the shim died without an exit status.
    pub async fn wait_exit(&self) -> Result<ExitStatus, Error> {
        if let Some(status) = exit_status(&self.dir) {
            return Ok(status);
        }
        match self.call(&Request::Wait).await {
            Ok((_, Answer::Exited(status))) => Ok(status),
            // It may have ended between the two looks.
            Ok(_) | Err(_) => exit_status(&self.dir).ok_or(Error::Lost),
        }
    }

    /// Waits until the shim has also deleted the container and left, so that the root can be unmounted.
    pub async fn wait_gone(&self) {
        gone(&self.dir).await;
    }

    async fn order(&self, request: &Request) -> Result<(), Error> {
        match self.call(request).await?.1 {
            Answer::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    async fn call(&self, request: &Request) -> Result<(UnixStream, Answer), Error> {
        let mut stream = self.connect().await.map_err(|_| Error::Lost)?;
        let mut line = serde_json::to_vec(request).map_err(|e| Error::Shim(e.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(|_| Error::Lost)?;
        // Byte by byte: what follows the line belongs to the caller.
        let mut answer = Vec::with_capacity(128);
        loop {
            match stream.read_u8().await {
                Ok(b'\n') => break,
                Ok(byte) if answer.len() < MAX_ANSWER_BYTES => answer.push(byte),
                Ok(_) => return Err(Error::Shim("an answer too long".into())),
                Err(_) => return Err(Error::Lost),
            }
        }
        let answer = serde_json::from_slice(&answer).map_err(|e| Error::Shim(e.to_string()))?;
        Ok((stream, answer))
    }

    /// By the folder's descriptor, since a socket's path is limited to 107 bytes.
    async fn connect(&self) -> std::io::Result<UnixStream> {
        let dir = open(&self.dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd())).await
    }
}

/// Finds the shim of `dir` again, by pid, start time and boot id. `None` when it is gone; then [`exit_status`] tells
/// whether the process' end was recorded.
pub fn adopt(dir: &Path) -> Option<Handle> {
    let identity: Identity = read(&dir.join(IDENTITY_FILE))?;
    // It lets go of its lock just before it ends.
    (identity.is_alive() && is_held(dir)).then(|| Handle { dir: dir.to_owned(), watch: None })
}

/// The recorded end of the process of `dir`.
pub fn exit_status(dir: &Path) -> Option<ExitStatus> {
    read(&dir.join(EXIT_FILE))
}

/// The recorded start of the process of `dir`.
pub fn started(dir: &Path) -> Option<Started> {
    read(&dir.join(STARTED_FILE))
}

/// Clears what a shim that died (or a machine that went down) left of its container: kills what still runs, deletes it
/// from the OCI runtime, and records code 137 where no end was recorded. Waits for a shim that lives. May be repeated.
pub async fn clean_up(shim_binary: &Path, dir: &Path) -> Result<(), Error> {
    let output = Command::new(shim_binary)
        .arg("--clean-up")
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(Error::io(format!("cannot run {}", shim_binary.display())))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Shim(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn unexpected(answer: Answer) -> Error {
    match answer {
        Answer::StartFailed { message, code } => Error::Start { message, code },
        Answer::NotRunning => Error::Lost,
        Answer::Failed { message } => Error::Shim(message),
        other => Error::Shim(format!("unexpected answer {other:?}")),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn is_held(dir: &Path) -> bool {
    File::open(dir.join(LOCK_FILE)).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

/// Waits until no shim holds `dir`.
async fn gone(dir: &Path) {
    let Ok(file) = File::open(dir.join(LOCK_FILE)) else { return };
    let file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => return,
        Err((file, _)) => file,
    };
    // A thread of the blocking pool waits; a container lives longer than any poll interval would be worth.
    let _ = tokio::task::spawn_blocking(move || drop(Flock::lock(file, FlockArg::LockShared))).await;
}
