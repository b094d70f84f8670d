//! One more gateway of a Boxyard: on the same bus, the same layer store and, where the database is a server's, the same
//! database, with folders and a socket of its own.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::engine::{client, run_command};
use crate::leftovers::wait_until;
use crate::{Boxyard, Client, Output, program};

/// A gateway's process; it ends with the test.
#[derive(Debug)]
pub struct Gateway {
    folder: TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Gateway {
    /// Starts one beside the one of this Boxyard, with the id `id`, and returns when it answers.
    pub fn start(boxyard: &Boxyard, id: &str) -> Self {
        let mut gateway = Self::beside(boxyard, id, None);
        gateway.up();
        gateway
    }

    /// Starts one on the same data folder as this Boxyard's own: returns how it ended, and what it said.
    pub fn start_on_same_folder(boxyard: &Boxyard) -> (ExitStatus, String) {
        let mut gateway = Self::beside(boxyard, "second", Some(&boxyard.data_dir().join("gateway")));
        gateway.spawn();
        let child = gateway.child.as_mut().expect("it was started");
        let status = wait_until("a second gateway on one file to end", 60, || child.try_wait().ok().flatten());
        gateway.child = None;
        (status, gateway.log())
    }

    /// The flags of the Boxyard's own gateway, with other places.
    fn beside(boxyard: &Boxyard, id: &str, data: Option<&Path>) -> Self {
        let folder = tempfile::Builder::new().prefix("gw.").tempdir_in("/tmp").expect("a temporary folder");
        fs::create_dir(folder.path().join("client")).expect("make a folder");
        let own = boxyard.pids_of("boxyard-gateway").first().copied().expect("its gateway runs");
        let line = fs::read_to_string(format!("/proc/{own}/cmdline")).expect("read its command line");
        let mut words = line.split('\0').skip(1).filter(|word| !word.is_empty()).map(str::to_owned);
        let mut arguments = Vec::new();
        while let Some(flag) = words.next() {
            let value = words.next().expect("each flag has a value");
            if !["--data-dir", "--streams", "--host"].contains(&flag.as_str()) {
                arguments.extend([flag, value]);
            }
        }
        let own_dir = folder.path().join("data");
        let pairs = [
            ("--id", id.to_owned()),
            ("--data-dir", data.unwrap_or(&own_dir).display().to_string()),
            ("--streams", format!("unix:{}", folder.path().join("streams.sock").display())),
            ("--host", format!("unix://{}", folder.path().join("docker.sock").display())),
        ];
        arguments.extend(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        Self { folder, arguments, child: None }
    }

    /// Starts it (again) and returns when it answers.
    pub fn up(&mut self) {
        self.spawn();
        let (log, api) = (self.log_path(), Client::new(&self.socket()));
        let child = self.child.as_mut().expect("it was started");
        wait_until("the gateway to answer", 60, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the gateway ended with {status}:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            (api.send("GET", "/info", "", "").ok()?.status == 200).then_some(())
        });
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "it is up already");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("make the log");
        let mut command = Command::new(program().with_file_name("boxyard-gateway"));
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(command.spawn().expect("start a gateway"));
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// Runs the docker command on it.
    pub fn docker(&self, args: &[&str]) -> Output {
        run_command(&mut client(&self.socket()), args, None)
    }

    /// Runs the docker command with these bytes as its standard input.
    pub fn feed(&self, args: &[&str], stdin: &[u8]) -> Output {
        run_command(&mut client(&self.socket()), args, Some(stdin))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Ends it by SIGTERM and checks that it logged no error.
    pub fn stop(mut self) {
        let status = self.end(Signal::SIGTERM);
        let log = self.log();
        assert!(status.is_some_and(|status| status.success()), "the gateway ended with {status:?}:\n{log}");
        assert!(!log.contains("ERROR"), "ERROR lines in the gateway's log:\n{log}");
    }

    fn end(&mut self, signal: Signal) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)), signal);
        Some(wait_until("a gateway to end", 60, || child.try_wait().ok().flatten()))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("gateway.log")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- gateway\n{}", self.log());
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
