//! A further gateway of a Boxyard that runs on PostgreSQL.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::boxyard::program;
use crate::engine::{client, run_command};
use crate::{Boxyard, Output};

/// It has its own socket and the Boxyard's bus, store and database.
#[derive(Debug)]
pub struct Gateway {
    socket: PathBuf,
    child: Child,
}

impl Gateway {
    /// Starts one under this id and returns when it serves.
    pub fn start(boxyard: &Boxyard, id: &str) -> Self {
        let data = boxyard.data_dir();
        let own = data.join(format!("gateway-{id}"));
        std::fs::create_dir_all(&own).expect("make a folder");
        let socket = boxyard.work_dir().join(format!("{id}.sock"));
        let port = |name: &str| boxyard.kept()[name].as_u64().unwrap_or_else(|| panic!("{name} is not kept"));
        let log = File::create(data.join(format!("logs/gateway-{id}.log"))).expect("make the log");
        let mut command = Command::new(program().with_file_name("boxyard-gateway"));
        command
            .args(["--id", id, "--nats-user", "gateway"])
            .args(["--nats-url", &format!("nats://127.0.0.1:{}", port("nats_port"))])
            .args(["--store-url", &format!("http://127.0.0.1:{}", port("store_port"))])
            .arg("--nats-password-file")
            .arg(data.join("secrets/gateway"))
            .arg("--token-file")
            .arg(data.join("secrets/store-token"))
            .arg("--database-file")
            .arg(data.join("secrets/database"))
            .args(["--host", &format!("unix://{}", socket.display())])
            .args(["--streams", &format!("unix:{}/streams.sock", own.display())])
            .arg("--data-dir")
            .arg(&own);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("start a gateway");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output is piped");
        let read = BufReader::new(stdout).read_line(&mut line);
        let gateway = Self { socket, child };
        assert!(read.is_ok() && line == "ready\n", "the gateway is not ready: {line:?}; see {}", data.display());
        gateway
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs the docker command on it.
    pub fn docker(&self, args: &[&str]) -> Output {
        run_command(&mut client(&self.socket), args, None)
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the gateway is killed");
    }

    /// Ends it as its supervisor would.
    pub fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"));
        kill(pid, Signal::SIGTERM).expect("signal the gateway");
        let status = self.child.wait().expect("the gateway ends");
        assert!(status.success(), "the gateway ended with {status}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
