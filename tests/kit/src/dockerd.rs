//! Debian's dockerds as peers of comparisons: own folders, own bridge, no iptables rules.
//!
//! Two dockerds share neither bridge nor firewall chains: each gets a bridge made here and one nft table that
//! lets its containers out, so it can run beside a Docker of the machine and beside other tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::leftovers::{sweep, wait_until};
use crate::{Client, engine::run_command};

/// Whose dockerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12's, installed: 20.10.
    Bookworm,
    /// Debian 13's, unpacked: 26.1, with its commands and their plug-ins.
    Trixie,
}

impl Release {
    /// A file of that release's packages by its path below `/usr`.
    pub fn file(self, path: &str) -> PathBuf {
        let root = match self {
            Self::Bookworm => PathBuf::from("/usr"),
            Self::Trixie => crate::cache_dir().join("docker-trixie/usr"),
        };
        let file = root.join(path);
        assert!(file.exists(), "{} is not there: run make setup", file.display());
        file
    }
}

/// A running dockerd with its own containerd.
#[derive(Debug)]
pub struct Dockerd {
    folder: TempDir,
    socket: PathBuf,
    work: PathBuf,
    name: String,
    child: Child,
}

impl Dockerd {
    /// Starts one with its data in the temporary folder.
    pub fn start() -> Self {
        Self::start_with_data(None)
    }

    /// Starts one whose images and containers lie in `data`, such as on a file system of their own.
    pub fn start_with_data(data: Option<&Path>) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with more flags of dockerd.
    pub fn start_with(data: Option<&Path>, flags: &[String]) -> Self {
        Self::start_release(Release::Bookworm, data, flags)
    }

    /// The same of another release of Debian.
    pub fn start_release(release: Release, data: Option<&Path>, flags: &[String]) -> Self {
        let folder = tempfile::Builder::new().prefix("kd.").tempdir_in("/tmp").expect("a temporary folder");
        let root = folder.path();
        let socket = root.join("docker.sock");
        let work = root.join("work");
        fs::create_dir(&work).expect("make the work folder");
        fs::create_dir(root.join("client")).expect("make the client's folder");
        let number = std::process::id() % 20_000 + u32::from(rand_byte()) * 20_000;
        let name = format!("kd{number}");
        let (high, low) = (number / 250 % 60 + 160, number % 250);
        let address = format!("10.{high}.{low}.1/24");
        let network = format!("10.{high}.{low}.0/24");
        must("ip", &["link", "add", &name, "type", "bridge"]);
        must("ip", &["addr", "add", &address, "dev", &name]);
        must("ip", &["link", "set", &name, "up"]);
        must("nft", &["add", "table", "ip", &name]);
        must("nft", &["add chain ip", &name, "out { type nat hook postrouting priority srcnat; }"]);
        must("nft", &["add rule ip", &name, "out ip saddr", &network, "oifname !=", &name, "masquerade"]);
        let log = File::create(root.join("dockerd.log")).expect("make the log");
        let mut command = Command::new(release.file("sbin/dockerd"));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--userland-proxy=false"])
            .args(["--bridge", &name])
            .args(flags)
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--data-root")
            .arg(data.map_or_else(|| root.join("data"), Path::to_path_buf))
            .arg("--exec-root")
            .arg(root.join("exec"))
            .arg("--pidfile")
            .arg(root.join("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log);
        let child = command.spawn().expect("dockerd is installed: run make setup");
        let mut dockerd = Self { folder, socket, work, name, child };
        dockerd.wait_ready();
        dockerd
    }

    fn wait_ready(&mut self) {
        let client = Client::new(&self.socket);
        wait_until("dockerd to answer", 60, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = fs::read_to_string(self.folder.path().join("dockerd.log")).unwrap_or_default();
                panic!("dockerd ended with {status}:\n{log}");
            }
            client.send("GET", "/_ping", "", "").ok().filter(|answer| answer.status == 200)
        });
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn work_dir(&self) -> &Path {
        &self.work
    }

    /// The process, for measuring.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The text that its processes' command lines hold.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops it and takes down its network.
    pub fn stop(self) {}
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"));
        let _ = kill(pid, Signal::SIGTERM);
        for _ in 0..500 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        sweep(self.folder.path());
        let _ = Command::new("nft").args(["delete", "table", "ip", &self.name]).status();
        let _ = Command::new("ip").args(["link", "delete", &self.name]).status();
    }
}

fn must(program: &str, args: &[&str]) {
    run_command(&mut Command::new(program), args, None).ok();
}

fn rand_byte() -> u8 {
    let mut byte = [0_u8];
    let read = File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut byte));
    read.expect("the machine has /dev/urandom");
    byte[0]
}
