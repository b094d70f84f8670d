//! Debian's docker-registry as the peer of pulls and pushes, and a throttle to stand in front of it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use crate::http::free_port;
use crate::leftovers::wait_until;
use crate::network::listen_in;

/// A running docker-registry on a port of loopback, with its own folder; ended when dropped.
#[derive(Debug)]
pub struct Registry {
    _folder: TempDir,
    port: u16,
    child: Child,
}

/// The one user of a registry that asks who is there.
pub const REGISTRY_USER: &str = "tester";
pub const REGISTRY_PASSWORD: &str = "secret";
/// As htpasswd -B writes it.
pub const REGISTRY_PASSWORD_BCRYPT: &str = "$2b$05$fFPteOU1scO8i7q508e78OKSb9YJXsFElhklrtukjRrKkkBJLeaHm";

impl Registry {
    /// One that lets everybody read and write.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// One that wants [`REGISTRY_USER`] and [`REGISTRY_PASSWORD`], by Basic auth.
    pub fn start_with_login() -> Self {
        Self::start_with("auth: {htpasswd: {realm: tests, path: htpasswd}}\n")
    }

    /// One with these lines in its configuration. Paths in them begin in its own folder.
    fn start_with(lines: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("reg.").tempdir_in("/tmp").expect("a temporary folder");
        let user = format!("{REGISTRY_USER}:{REGISTRY_PASSWORD_BCRYPT}\n");
        fs::write(folder.path().join("htpasswd"), user).expect("write the users");
        for _ in 0..5 {
            let port = free_port();
            let config = format!(
                "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: data}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{lines}"
            );
            fs::write(folder.path().join("config.yml"), config).expect("write the configuration");
            let log = fs::File::create(folder.path().join("log")).expect("make the log");
            let mut child = Command::new("docker-registry")
                .args(["serve", "config.yml"])
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("share the log"))
                .stderr(log)
                .spawn()
                .expect("docker-registry is installed: run make setup");
            // Another test may have taken the port in between; then this one ends.
            let serves = wait_until("docker-registry to listen", 60, || match child.try_wait() {
                Ok(Some(_)) => Some(false),
                _ => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok().then_some(true),
            });
            if serves && matches!(child.try_wait(), Ok(None)) {
                return Self { _folder: folder, port, child };
            }
        }
        let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        panic!("docker-registry does not start:\n{log}");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`, as it stands before an image's name.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A slow wire to a port: both directions of all its connections share one rate.
#[derive(Debug)]
pub struct Throttle {
    address: SocketAddr,
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    target: SocketAddr,
    bytes_per_second: AtomicU64,
    down: AtomicU64,
    up: AtomicU64,
    closed: AtomicBool,
    /// When the wire has sent what it was given so far.
    free_at: Mutex<Instant>,
}

impl Throttle {
    /// To a port of loopback, from a free one.
    pub fn new(target: u16, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        Self::on(listener, (Ipv4Addr::LOCALHOST, target).into(), bytes_per_second)
    }

    /// Between two addresses of another network namespace.
    pub(crate) fn in_namespace(namespace: &Path, [from, target]: [SocketAddr; 2], bytes_per_second: u64) -> Self {
        let namespace = std::fs::File::open(namespace).expect("the namespace");
        // What this thread starts is in the namespace, too.
        let made = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            Self::on(TcpListener::bind(from).expect("listen"), target, bytes_per_second)
        });
        made.join().expect("a wire")
    }

    /// From a port of another namespace's loopback to the same port of this one's, as fast as it goes.
    pub(crate) fn out_of_namespace(namespace: &Path, port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self::on(listen_in(namespace, address), address, u64::MAX)
    }

    fn on(listener: TcpListener, target: SocketAddr, bytes_per_second: u64) -> Self {
        let address = listener.local_addr().expect("it has an address");
        let wire = Arc::new(Wire {
            target,
            bytes_per_second: bytes_per_second.into(),
            down: 0.into(),
            up: 0.into(),
            closed: false.into(),
            free_at: Instant::now().into(),
        });
        std::thread::spawn({
            let wire = wire.clone();
            move || {
                for client in listener.incoming().flatten() {
                    if wire.closed.load(Ordering::Relaxed) {
                        return;
                    }
                    wire.join(client);
                }
            }
        });
        Self { address, wire }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn set_rate(&self, bytes_per_second: u64) {
        self.wire.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Bytes that went from the server to clients so far.
    pub fn down(&self) -> u64 {
        self.wire.down.load(Ordering::Relaxed)
    }

    /// Bytes that went from clients to the server so far.
    pub fn up(&self) -> u64 {
        self.wire.up.load(Ordering::Relaxed)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.wire.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; one in another namespace ends with the process.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(100));
    }
}

impl Wire {
    /// How long whoever sent so many bytes waits, so that all together keep the rate.
    fn turn(&self, count: usize) -> Duration {
        let rate = self.bytes_per_second.load(Ordering::Relaxed).max(1);
        let mut free = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        *free = (*free).max(now) + Duration::from_secs_f64(count as f64 / rate as f64);
        *free - now
    }

    /// Copies both ways, each in a thread of its own, until either side closes.
    fn join(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.target) else { return };
        for (from, to, is_down) in [(&client, &server, false), (&server, &client, true)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            let wire = self.clone();
            std::thread::spawn(move || wire.copy(from, to, if is_down { &wire.down } else { &wire.up }));
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, passed: &AtomicU64) {
        let mut buffer = vec![0; 8 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if self.closed.load(Ordering::Relaxed) || to.write_all(&buffer[..count]).is_err() {
                break;
            }
            passed.fetch_add(count as u64, Ordering::Relaxed);
            sleep(self.turn(count));
        }
        // A side that is gone ends the other one's reading too.
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }
}
