//! Starts the OCI runtime, and translates what it says when it fails.

use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use runtime::wire::{EXIT_FILE, ExitStatus, IDENTITY_FILE, Identity, ShimConfig, now_ns};

use crate::record::{self, Durable};
use crate::stdio::{ChildEnds, Stdio3};

const PID_FILE: &str = "process.pid";
const PROCESS_FILE: &str = "process.json";
const RUNTIME_LOG_FILE: &str = "runtime.log";
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// Console sockets; short, since the OCI runtime connects by path.
const CONSOLE_DIR: &str = "/run/boxyard";

pub struct Launched {
    /// Of the OCI runtime.
    pub pid: i32,
    pub stdio: Stdio3,
    /// Where it sends the terminal.
    pub console: Option<Console>,
}

pub struct Console {
    pub listener: UnixListener,
    path: PathBuf,
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

pub fn launch(config: &ShimConfig) -> anyhow::Result<Launched> {
    for name in [PID_FILE, RUNTIME_LOG_FILE] {
        let _ = std::fs::remove_file(name);
    }
    let here = std::env::current_dir().context("cannot read the own folder")?;
    let mut command = base(config, &here);
    command.arg(if config.exec.is_some() { "exec" } else { "run" }).arg("--detach");
    command.arg("--pid-file").arg(here.join(PID_FILE));
    let console = if config.tty { Some(console()?) } else { None };
    if let Some(console) = &console {
        command.arg("--console-socket").arg(&console.path);
    }
    if let Some(process) = &config.exec {
        std::fs::write(PROCESS_FILE, process.to_string()).context("cannot write the process")?;
        command.arg("--process").arg(here.join(PROCESS_FILE));
    } else {
        command.arg("--bundle").arg(&config.bundle);
    }
    command.arg(&config.id);
    let stdio = if config.tty {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Stdio3::default()
    } else {
        let (stdio, ChildEnds { stdin, stdout, stderr }) = Stdio3::pipes(config.open_stdin)?;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        stdio
    };
    let child = command.spawn().with_context(|| format!("cannot run {}", config.runtime_binary.display()))?;
    Ok(Launched { pid: child.id() as i32, stdio, console })
}

/// After a shim that died: its container goes too, since nobody can know how it ends.
pub fn clean_up(config: &ShimConfig) -> anyhow::Result<()> {
    let of_this_boot = std::fs::read(IDENTITY_FILE)
        .ok()
        .and_then(|text| serde_json::from_slice::<Identity>(&text).ok())
        .is_none_or(|shim| Identity::of(std::process::id() as i32).is_ok_and(|now| now.boot_id == shim.boot_id));
    if !of_this_boot {
        // The pids that the runtime noted are others' by now.
        if config.exec.is_none() {
            let _ = std::fs::remove_dir_all(config.runtime_root.join(&config.id));
        }
    } else if config.exec.is_none() {
        // It fails where the runtime knows no such container, and then nothing is left to do.
        delete(config)?.wait().context("cannot wait for the OCI runtime")?;
    }
    if Path::new(EXIT_FILE).exists() {
        return Ok(());
    }
    let error = "the container's shim died".to_owned();
    let status = ExitStatus { code: 137, oom: false, expired: false, finished_at_ns: now_ns(), error };
    record::write(EXIT_FILE, &status, Durable::Yes)
}

/// Removes the control groups and the OCI runtime's folder of a container whose processes have all ended, as its
/// `delete` would, without another start of a program. False where something is left, which [`delete`] can end.
pub fn forget(config: &ShimConfig) -> bool {
    let group = config.cgroup_path.trim_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let mut folders = vec![root.join(group)];
    folders.extend(std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path().join(group)));
    let emptied = folders.iter().all(|folder| match std::fs::remove_dir(folder) {
        Ok(()) => true,
        Err(e) => matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory),
    });
    emptied && !group.is_empty() && std::fs::remove_dir_all(config.runtime_root.join(&config.id)).is_ok()
}

/// Removes what the OCI runtime keeps of the container, and kills what still runs of it.
pub fn delete(config: &ShimConfig) -> anyhow::Result<Child> {
    let here = std::env::current_dir().context("cannot read the own folder")?;
    let mut command = base(config, &here);
    command.arg("delete").arg("--force").arg(&config.id);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("cannot run the OCI runtime to delete the container")
}

fn base(config: &ShimConfig, here: &Path) -> Command {
    let mut command = Command::new(&config.runtime_binary);
    command.arg("--root").arg(&config.runtime_root);
    // Not on stderr, which is the container's.
    command.arg("--log").arg(here.join(RUNTIME_LOG_FILE)).arg("--log-format").arg("json");
    let hybrid = Path::new(UNIFIED).join("cgroup.procs").exists();
    // SAFETY: the closure only makes system calls; this process has one thread, so no lock can be held.
    unsafe {
        command.pre_exec(move || {
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            if hybrid {
                hide_unified()?;
            }
            Ok(())
        });
    }
    command
}

/// crun 1.8 takes a hybrid machine (controllers on v1, and a v2 mount) for one that it can't serve; without that mount
/// it is a plain v1 machine. Slave, so that mounts made and removed outside go on to arrive.
fn hide_unified() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    umount2(UNIFIED, MntFlags::MNT_DETACH)?;
    Ok(())
}

fn console() -> anyhow::Result<Console> {
    std::fs::create_dir_all(CONSOLE_DIR).with_context(|| format!("cannot make {CONSOLE_DIR}"))?;
    let path = Path::new(CONSOLE_DIR).join(format!("tty-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).context("cannot make the console socket")?;
    listener.set_nonblocking(true).context("cannot make the console socket non-blocking")?;
    Ok(Console { listener, path })
}

/// Pid of the container's process, as the runtime wrote it.
pub fn process_pid() -> anyhow::Result<i32> {
    let text = std::fs::read_to_string(PID_FILE).context("cannot read the process' pid")?;
    text.trim().parse().context("cannot parse the process' pid")
}

/// Why the runtime failed, in Docker's words, and the exit code that Docker gives.
pub fn failure(config: &ShimConfig) -> (String, i32) {
    let log = std::fs::read_to_string(RUNTIME_LOG_FILE).unwrap_or_default();
    let said = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|line| line["msg"].as_str().map(str::to_owned))
        .next_back()
        .unwrap_or_else(|| "the OCI runtime failed without a word".into());
    let args = match &config.exec {
        Some(process) => process["args"].clone(),
        None => std::fs::read(config.bundle.join("config.json"))
            .ok()
            .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
            .map(|spec| spec["process"]["args"].clone())
            .unwrap_or_default(),
    };
    let (reason, code) = translate(&said, args[0].as_str().unwrap_or_default());
    let doing =
        if config.exec.is_some() { "OCI runtime exec failed: exec failed" } else { "OCI runtime create failed" };
    (format!("{doing}: unable to start container process: {reason}: unknown"), code)
}

fn translate(said: &str, program: &str) -> (String, i32) {
    let lower = said.to_ascii_lowercase();
    // The working folder: crun's words, whose reason stands behind the last colon.
    if let Some((folder, reason)) = said.strip_prefix("chdir `").and_then(|rest| rest.split_once("`: ")) {
        let reason = reason.to_ascii_lowercase();
        let code = if reason == "no such file or directory" { 127 } else { 126 };
        return (format!("chdir to cwd (\"{folder}\") set in config.json failed: {reason}"), code);
    }
    let of_program = lower.contains("exec");
    if of_program && (lower.contains("not found in $path") || lower.contains("no such file or directory")) {
        let reason = if program.contains('/') {
            format!("stat {program}: no such file or directory")
        } else {
            "executable file not found in $PATH".into()
        };
        return (format!("exec: \"{program}\": {reason}"), 127);
    }
    if of_program
        && ["permission denied", "operation not permitted", "is a directory"].iter().any(|w| lower.contains(w))
    {
        return (format!("exec: \"{program}\": permission denied"), 126);
    }
    if of_program && lower.contains("exec format error") {
        return (format!("exec: \"{program}\": exec format error"), 126);
    }
    (said.to_owned(), 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_words() {
        for (said, program, want) in [
            (
                "executable file `x` not found in $PATH: No such file or directory",
                "x",
                ("exec: \"x\": executable file not found in $PATH", 127),
            ),
            (
                "executable file `/n/x` not found in $PATH: No such file or directory",
                "/n/x",
                ("exec: \"/n/x\": stat /n/x: no such file or directory", 127),
            ),
            ("open executable: Operation not permitted", "/etc", ("exec: \"/etc\": permission denied", 126)),
            ("open executable: Permission denied", "/a", ("exec: \"/a\": permission denied", 126)),
            (
                "chdir `/n`: No such file or directory",
                "pwd",
                ("chdir to cwd (\"/n\") set in config.json failed: no such file or directory", 127),
            ),
            ("mount `proc` to `proc`: Invalid argument", "/a", ("mount `proc` to `proc`: Invalid argument", 128)),
        ] {
            let (reason, code) = translate(said, program);
            assert_eq!((reason.as_str(), code), want);
        }
    }
}
