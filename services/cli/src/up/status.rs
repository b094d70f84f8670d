//! What the supervisor writes down about its processes, and the commands that read it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::Up;
use super::config::{Plan, write_private};
use crate::failure::{Failure, Outcome};
use crate::format::table::aligned;
use crate::{output, units};

/// `status.json`.
#[derive(Serialize, Deserialize, Debug)]
pub struct Board {
    #[serde(skip)]
    folder: PathBuf,
    pub ready: bool,
    pub hosts: Vec<String>,
    pub versions: BTreeMap<String, String>,
    pub entries: Vec<Entry>,
}

/// One process. Pid and start time together name it for good; a pid alone may be reused.
#[derive(Serialize, Deserialize, Debug)]
pub struct Entry {
    pub name: String,
    pub pid: u32,
    pub start_time: u64,
    pub restarts: u32,
    pub state: String,
}

impl Board {
    pub fn new(folder: &Path, hosts: &[String]) -> Self {
        Self {
            folder: folder.to_owned(),
            ready: false,
            hosts: hosts.to_vec(),
            versions: BTreeMap::new(),
            entries: Vec::new(),
        }
    }

    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join("status.json")).ok()?).ok()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn write(&self) {
        if let Ok(json) = serde_json::to_vec_pretty(self) {
            let _ = write_private(&self.folder.join("status.json"), &json);
        }
    }
}

impl Entry {
    fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid as i32), signal);
        }
    }
}

/// Signals one process of a running Boxyard; does nothing when it does not run.
pub fn signal(folder: &Path, name: &str, signal: Signal) {
    let entries = Board::read(folder).map(|board| board.entries).unwrap_or_default();
    entries.iter().filter(|entry| entry.name == name).for_each(|entry| entry.signal(signal));
}

/// What the supervisor says of one of its processes; none where it has no such.
pub fn state(folder: &Path, name: &str) -> Option<String> {
    Board::read(folder)?.entries.into_iter().find(|entry| entry.name == name).map(|entry| entry.state)
}

pub fn is_running(folder: &Path) -> bool {
    supervisor_pid(folder).is_some()
}

pub fn signal_supervisor(folder: &Path, signal: Signal) {
    if let Some(pid) = supervisor_pid(folder) {
        let _ = kill(Pid::from_raw(pid as i32), signal);
    }
}

/// Clock ticks from boot to the start of a process; none when it is gone or a zombie.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Ends processes of a supervisor that was killed; their containers live on.
pub async fn end_leftovers(folder: &Path) {
    let Some(board) = Board::read(folder) else { return };
    board.entries.iter().for_each(|e| e.signal(Signal::SIGTERM));
    let until = Instant::now() + Duration::from_secs(10);
    while board.entries.iter().any(Entry::is_alive) {
        if Instant::now() > until {
            board.entries.iter().for_each(|e| e.signal(Signal::SIGKILL));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `up --detach`: starts the supervisor on its own and returns when it is ready.
pub async fn detach(up: &Up, plan: &Plan) -> Outcome {
    fs::create_dir_all(plan.data_dir.join("logs"))?;
    let log = plan.data_dir.join("logs/supervisor.log");
    let open = || fs::OpenOptions::new().append(true).create(true).open(&log);
    let already = open()?.metadata()?.len();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").arg("--data-dir").arg(&plan.data_dir);
    for host in &up.hosts {
        command.arg("--host").arg(host);
    }
    if plan.joined.is_none() {
        command.arg("--workers").arg(plan.kept.workers.to_string());
    }
    for mirror in up.registry_mirrors.iter().flatten() {
        command.arg("--registry-mirror").arg(mirror);
    }
    for registry in up.insecure_registries.iter().flatten() {
        command.arg("--insecure-registry").arg(registry);
    }
    if let Some(url) = &up.database {
        // Not on the command line, where others on the machine would see it.
        command.env("BOXYARD_DATABASE", url);
    }
    if up.no_node {
        command.arg("--no-node");
    }
    command.args(plan.kept.caps.up_flags());
    command.args(plan.kept.registry.up_flags());
    for (flag, path) in up.tls.flags() {
        command.arg(flag).arg(path);
    }
    if up.insecure_api {
        command.arg("--insecure-api");
    }
    use std::os::unix::process::CommandExt;
    let mut child = command.stdin(Stdio::null()).stdout(open()?).stderr(open()?).process_group(0).spawn()?;
    loop {
        if child.try_wait()?.is_some() {
            let said = fs::read(&log).unwrap_or_default();
            let said = String::from_utf8_lossy(said.get(already as usize..).unwrap_or_default()).trim().to_owned();
            return Err(Failure::new(if said.is_empty() { "the supervisor ended".into() } else { said }));
        }
        let pid = supervisor_pid(&plan.data_dir);
        if pid == Some(child.id()) && Board::read(&plan.data_dir).is_some_and(|b| b.ready) {
            output::line(plan.greeting());
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `down`.
pub async fn down(folder: &Path) -> Outcome {
    let Some(pid) = supervisor_pid(folder) else {
        if Board::read(folder).is_some_and(|b| b.entries.iter().any(Entry::is_alive)) {
            let _ = fs::write(super::config::stop_mark(folder), b"");
            end_leftovers(folder).await;
            let _ = fs::remove_file(folder.join("status.json"));
            return Ok(());
        }
        return Err(Failure::new(format!("no Boxyard runs on {}", folder.display())));
    };
    let began = start_time(pid);
    kill(Pid::from_raw(pid as i32), Signal::SIGTERM)
        .map_err(|e| Failure::new(format!("the supervisor (pid {pid}) cannot be told to end: {e}")))?;
    while start_time(pid) == began && began.is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The running supervisor; a pid file of a dead one does not count.
fn supervisor_pid(folder: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(folder.join("boxyard.pid")).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let is_ours = command.split(|b| *b == 0).any(|part| part == b"up");
    is_ours.then_some(pid)
}

/// `status`.
pub fn show(folder: &Path) -> Outcome {
    let board = Board::read(folder);
    let Some(board) = board.filter(|b| supervisor_pid(folder).is_some() || b.entries.iter().any(Entry::is_alive))
    else {
        return Err(Failure::new(format!("no Boxyard runs on {}", folder.display()))
            .hint(format!("Start it with 'boxyard up --data-dir {}'.", folder.display())));
    };
    let mut text = "SERVICE\tSTATE\tVERSION\tPID\tUPTIME\tMEMORY\tRESTARTS\n".to_owned();
    let mut total = 0.0;
    for entry in &board.entries {
        let alive = entry.is_alive();
        let memory = if alive { memory_bytes(entry.pid) } else { 0.0 };
        total += memory;
        let version = board.versions.get(&entry.name).map_or(env!("CARGO_PKG_VERSION"), String::as_str);
        let state = if alive { entry.state.as_str() } else { "down" };
        let uptime = if alive { units::duration(uptime_seconds(entry)) } else { "-".into() };
        text += &format!(
            "{}\t{state}\t{version}\t{}\t{uptime}\t{}\t{}\n",
            entry.name,
            entry.pid,
            units::binary_size(memory),
            entry.restarts
        );
    }
    output::write(aligned(&text, 10)?.as_bytes());
    output::line(format!("\nMemory together: {}   Listens on: {}", units::binary_size(total), board.hosts.join(", ")));
    Ok(())
}

fn uptime_seconds(entry: &Entry) -> i64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let now: f64 = uptime.split(' ').next().and_then(|t| t.parse().ok()).unwrap_or(0.0);
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    (now - entry.start_time as f64 / ticks as f64) as i64
}

/// Proportional set size: pages that processes share are counted once.
fn memory_bytes(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let pss = rollup.lines().find_map(|l| l.strip_prefix("Pss:"));
    pss.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok()).map_or(0.0, |kib| kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_pid_and_start() {
        let me = std::process::id();
        let mut entry = Entry {
            name: "x".into(),
            pid: me,
            start_time: start_time(me).expect("alive"),
            restarts: 0,
            state: "ready".into(),
        };
        assert!(entry.is_alive());
        entry.start_time += 1;
        assert!(!entry.is_alive());
        assert!(memory_bytes(me) > 0.0);
    }
}
