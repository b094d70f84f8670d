//! A whole Boxyard from `target/release`, started by its own `up` command and stopped with checks.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::binfmt::seeing_binfmt;
use crate::engine::{boxyard_client, client, run_command, spawn_client, spawn_command};
use crate::leftovers::{
    assert_nothing_left, cgroups_of, named_on_host, pids_of, remove_named_on_host, sweep, wait_until,
};
use crate::{Client, Output, Postgres};

/// How to start it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Build workers.
    pub workers: u32,
    /// A data folder of the caller's, such as a small file system; else one in the temporary folder.
    pub data_dir: Option<PathBuf>,
    /// URL of a database; else a file in the data folder, or a PostgreSQL of its own where the environment has
    /// `BOXYARD_TEST_POSTGRES`.
    pub database: Option<String>,
    /// What each worker does at once; else its own default.
    pub worker_slots: Option<u32>,
    /// More flags of `up`, such as `--registry-mirror=URL`.
    pub flags: Vec<String>,
    /// It sees the kernel's handlers of foreign programs, which nobody else does: [`crate::Binfmt`].
    pub sees_binfmt: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 1, data_dir: None, database: None, worker_slots: None, flags: Vec::new(), sees_binfmt: false }
    }
}

/// A running Boxyard.
#[derive(Debug)]
pub struct Boxyard {
    folder: TempDir,
    data: PathBuf,
    socket: PathBuf,
    work: PathBuf,
    options: Options,
    child: Option<Child>,
    /// Where the latest start's lines begin in the log.
    log_start: usize,
    expected_errors: std::sync::Mutex<Vec<String>>,
    /// Ends after everything else.
    _postgres: Option<Postgres>,
}

impl Boxyard {
    /// Starts one and returns when it is ready.
    pub fn start(mut options: Options) -> Self {
        let asked = options.database.is_none() && std::env::var_os("BOXYARD_TEST_POSTGRES").is_some();
        let postgres = asked.then(Postgres::start);
        options.database = options.database.or(postgres.as_ref().map(Postgres::url));
        let folder = tempfile::Builder::new().prefix("by.").tempdir_in("/tmp").expect("a temporary folder");
        let data = options.data_dir.clone().unwrap_or_else(|| folder.path().join("data"));
        let work = folder.path().join("work");
        for path in [&data, &work, &folder.path().join("client")] {
            fs::create_dir_all(path).expect("make a folder");
        }
        let socket = folder.path().join("docker.sock");
        let expected_errors = std::sync::Mutex::default();
        let mut boxyard = Self {
            folder,
            data,
            socket,
            work,
            options,
            child: None,
            log_start: 0,
            expected_errors,
            _postgres: postgres,
        };
        boxyard.up();
        boxyard
    }

    /// One that listens on this port of loopback too, with busybox.
    pub fn start_on_port() -> (Self, u16) {
        let port = crate::free_port();
        let flags = vec![format!("--host=tcp://127.0.0.1:{port}")];
        let boxyard = Self::start(Options { flags, ..Options::default() });
        boxyard.feed(&["load", "-q"], &crate::busybox()).ok();
        (boxyard, port)
    }

    /// Starts it on its data folder (again). Panics with its log where it does not get ready.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it is up already");
        self.log_start = self.log().len();
        let log = File::options().create(true).append(true).open(self.log_path()).expect("make the log");
        let mut command = match self.options.sees_binfmt {
            false => Command::new(program()),
            true => seeing_binfmt(&program()),
        };
        command
            .arg("up")
            .arg("--data-dir")
            .arg(&self.data)
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()))
            .arg("--workers")
            .arg(self.options.workers.to_string())
            .args(&self.options.flags)
            .env("PATH", search_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .process_group(0);
        if let Some(slots) = self.options.worker_slots {
            command.env("BOXYARD_WORKER_SLOTS", slots.to_string());
        }
        if let Some(url) = &self.options.database {
            command.env("BOXYARD_DATABASE", url);
        }
        self.child =
            Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}; run make build", program().display())));
        self.wait_ready();
    }

    /// Waits until the API answers as a ready engine does: `/info` needs all services.
    pub fn wait_ready(&mut self) {
        let client = Client::new(&self.socket);
        let log_path = self.log_path();
        wait_until("Boxyard to be ready", 60, || {
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                panic!("boxyard up ended with {status}:\n{}", fs::read_to_string(&log_path).unwrap_or_default());
            }
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            let ready = log.get(self.log_start..).is_some_and(|log| log.contains("is ready"));
            (ready && client.send("GET", "/info", "", "").ok()?.status == 200).then_some(())
        });
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn work_dir(&self) -> &Path {
        &self.work
    }

    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    /// What `up` has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs the docker command on it.
    pub fn docker(&self, args: &[&str]) -> Output {
        run_command(&mut client(&self.socket), args, None)
    }

    /// Runs the docker command with these bytes as its standard input.
    pub fn feed(&self, args: &[&str], stdin: &[u8]) -> Output {
        run_command(&mut client(&self.socket), args, Some(stdin))
    }

    /// The docker command that goes on by itself, its output in a file.
    pub fn spawn_docker(&self, args: &[&str], output: &Path) -> Child {
        spawn_client(&self.socket, args, output)
    }

    /// Runs the boxyard command on it.
    pub fn boxyard(&self, args: &[&str]) -> Output {
        self.boxyard_in(&self.work, args)
    }

    /// Runs the boxyard command on it, in a folder.
    pub fn boxyard_in(&self, folder: &Path, args: &[&str]) -> Output {
        let mut command = boxyard_client(program(), &self.socket);
        run_command(command.env("BOXYARD_DATA_DIR", &self.data).current_dir(folder), args, None)
    }

    /// The boxyard command of another user that goes on by itself, its output in a file. It gets through all folders.
    pub fn spawn_boxyard_as(&self, user: u32, args: &[&str], output: &Path) -> Child {
        let mut command = boxyard_client("setpriv", &self.socket);
        command
            .arg(format!("--reuid={user}"))
            .arg("--clear-groups")
            .args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"])
            .arg(program())
            .env("XDG_CACHE_HOME", self.work.join(format!("cache-{user}")));
        spawn_command(&mut command, args, output)
    }

    /// An ERROR line of a service log that holds this text is part of the test.
    pub fn expect_error(&self, text: &str) {
        self.expected_errors.lock().expect("no thread of the test panicked").push(text.to_owned());
    }

    /// Processes of one service of this Boxyard, by the name of its program.
    pub fn pids_of(&self, name: &str) -> Vec<i32> {
        pids_of(name, &self.data.to_string_lossy())
    }

    /// kill -9 of every process of one service; returns how many there were.
    pub fn kill_service(&self, name: &str) -> usize {
        let pids = self.pids_of(name);
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        pids.len()
    }

    /// kill -9 of the supervisor and all services at once, shims and containers spared.
    pub fn kill_all(&mut self) {
        let mut pids = Vec::new();
        for name in SERVICES.iter().chain(["nats-server"].iter()) {
            pids.extend(self.pids_of(name));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Stops it by SIGTERM, as a person's ctrl-c would; the data folder stays.
    pub fn down(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits"));
        kill(pid, Signal::SIGTERM).expect("signal the supervisor");
        let status = wait_until("boxyard up to end after SIGTERM", 60, || child.try_wait().ok().flatten());
        assert!(status.success(), "boxyard up ended with {status}:\n{}", self.log());
    }

    /// Stops it and checks that no process, mount or control group is left, and no unexpected ERROR was logged.
    pub fn stop(mut self) {
        let ids: Vec<String> = self.docker(&["ps", "-aq", "--no-trunc"]).stdout.lines().map(str::to_owned).collect();
        let instance = self.instance();
        self.down();
        assert_nothing_left(&self.data);
        assert_eq!(cgroups_of(&ids), [] as [PathBuf; 0], "control groups are left");
        if let Some(instance) = instance {
            assert_eq!(named_on_host(&instance), [] as [String; 0], "things of the host are left");
        }
        let errors = self.unexpected_errors();
        assert!(errors.is_empty(), "ERROR lines in the logs:\n{}", errors.join("\n"));
    }

    /// The id that every host-global name (bridge, nft table, cgroup) carries.
    pub fn instance(&self) -> Option<String> {
        self.kept()["instance"].as_str().map(str::to_owned)
    }

    /// Port of the registry of `--registry`.
    pub fn registry_port(&self) -> u16 {
        let kept = self.kept();
        let address = kept["registry"]["address"].as_str().expect("the registry's address is kept");
        address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// What the supervisor keeps over restarts: instance id and ports.
    pub fn kept(&self) -> serde_json::Value {
        kept(&self.data)
    }

    fn unexpected_errors(&self) -> Vec<String> {
        let expected = self.expected_errors.lock().expect("no thread of the test panicked");
        let mut files = vec![self.log_path()];
        for folder in [self.data.join("logs"), self.data.join("log")] {
            files.extend(fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        files
            .iter()
            .filter_map(|file| Some((file, fs::read(file).ok()?)))
            .flat_map(|(file, bytes)| {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                text.lines()
                    .filter(|line| line.contains("ERROR"))
                    .map(|line| format!("{}: {line}", file.display()))
                    .collect::<Vec<_>>()
            })
            .filter(|line| !expected.iter().any(|text| line.contains(text.as_str())))
            .collect()
    }
}

/// What the supervisor of this data folder keeps; null where there is nothing.
pub(crate) fn kept(data: &Path) -> serde_json::Value {
    let bytes = fs::read(data.join("boxyard.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

impl Drop for Boxyard {
    /// After `stop` nothing is left to do; after a failed test everything is ended by force, and its log is shown.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- boxyard up\n{}", self.log());
            for entry in fs::read_dir(self.data.join("logs")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                let tail = text.lines().rev().take(15).collect::<Vec<_>>();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                eprintln!("--- {}\n{tail}", entry.path().display());
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)), Signal::SIGTERM);
            for _ in 0..500 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let instance = self.instance();
        sweep(self.folder.path());
        sweep(&self.data);
        if let Some(instance) = instance {
            remove_named_on_host(&instance);
        }
    }
}

/// The programs of the services, as the design names them.
pub const SERVICES: [&str; 5] =
    ["boxyard-gateway", "boxyard-registry-sync", "boxyard-layer-store", "boxyard-build-worker", "boxyard-node"];

/// `boxyard` in the folder that `BOXYARD_BIN_DIR` names (programs that a build does not replace under a running
/// test), else in `target/release` of this checkout. The services lie beside it.
pub fn program() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release");
    std::env::var_os("BOXYARD_BIN_DIR").map_or_else(built, PathBuf::from).join("boxyard")
}

/// Where `make setup` keeps what it made.
pub fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    base.unwrap_or_else(|| Path::new(&std::env::var("HOME").unwrap_or_else(|_| "/root".into())).join(".cache"))
        .join("boxyard")
}

pub(crate) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}:/usr/sbin:/sbin", cache_dir().join("bin").display())
}
