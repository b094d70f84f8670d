//! A private PostgreSQL of Debian's: own folder, own port, stopped with the test.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use crate::leftovers::wait_until;

const USER: &str = "boxyard";
/// Odd enough to be found where it must not be.
pub const PASSWORD: &str = "pw-5d0c1f-secret";

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a server of its own in the temporary folder and returns when it answers.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pg.").tempdir_in("/tmp").expect("a temporary folder");
        let secret = folder.path().join("password");
        fs::write(&secret, PASSWORD).expect("write the password");
        if let Some(user) = server_user() {
            for path in [folder.path(), &secret] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("give the folder away");
            }
        }
        let mut initdb = as_server_user(&programs().join("initdb"));
        initdb
            .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync", "--pwfile"])
            .arg(&secret)
            .arg("--pgdata")
            .arg(folder.path().join("data"));
        let done = initdb.current_dir("/").output().expect("initdb of the package postgresql");
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let mut server = Self { folder, port: free.port(), child: None };
        server.up();
        server
    }

    /// Starts it on its folder (again), at the same port.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it is up already");
        let log = fs::File::options().create(true).append(true).open(self.log_path()).expect("make the log");
        let mut command = as_server_user(&programs().join("postgres"));
        command.arg("-D").arg(self.folder.path().join("data")).arg("-p").arg(self.port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=60",
        ] {
            command.args(["-c", setting]);
        }
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone().expect("share the log")).stderr(log);
        self.child = Some(command.spawn().expect("start postgres"));
        let log = self.log_path();
        let child = self.child.as_mut().expect("it was started");
        let port = self.port.to_string();
        let answers = || {
            let mut asked = Command::new(programs().join("pg_isready"));
            asked.args(["-q", "-h", "127.0.0.1", "-p", &port]).status().is_ok_and(|status| status.success())
        };
        wait_until("PostgreSQL to answer", 60, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("postgres ended with {status}:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            answers().then_some(())
        });
    }

    /// Ends it as a crash of its machine would: connections break, what was committed stays.
    pub fn down(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)), Signal::SIGQUIT);
        let _ = child.wait();
    }

    /// The URL of its database `postgres`, with the password.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements; panics with the server's words when one fails.
    pub fn sql(&self, text: &str) -> String {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text, &self.url()]);
        let done = psql.output().expect("psql of the package postgresql");
        assert!(done.status.success(), "{text}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// Nobody else writes to a table as long as the result lives; it is read on.
    pub fn lock(&self, table: &str) -> TableLock {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["-X", "-q", &self.url()]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = psql.spawn().expect("psql of the package postgresql");
        let text = format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE;\n");
        // As long as it may say more, its transaction goes on.
        child.stdin.as_mut().expect("piped").write_all(text.as_bytes()).expect("psql reads");
        let lock = TableLock(child);
        wait_until("the table to be locked", 30, || (self.locks(table, true) > 0).then_some(()));
        lock
    }

    /// Whether somebody waits to write to a table that is locked.
    pub fn is_waited_for(&self, table: &str) -> bool {
        self.locks(table, false) > 0
    }

    fn locks(&self, table: &str, granted: bool) -> u32 {
        let mode = if granted { "= 'ExclusiveLock'" } else { "<> ''" };
        let text = format!(
            "SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND granted = {granted} AND mode {mode}"
        );
        self.sql(&text).parse().expect("a number")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }
}

/// A lock on a table of a [`Postgres`].
#[derive(Debug)]
pub struct TableLock(Child);

impl Drop for TableLock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- postgres\n{}", fs::read_to_string(self.log_path()).unwrap_or_default());
        }
        self.down();
    }
}

/// Debian keeps the server's programs by version, beside PATH.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.expect("the package postgresql; run make setup");
    Path::new("/usr/lib/postgresql").join(newest.to_string()).join("bin")
}

/// PostgreSQL refuses to run as root.
fn server_user() -> Option<User> {
    geteuid().is_root().then(|| User::from_name("postgres").ok().flatten().expect("the package's user postgres"))
}

/// The program as the server's user; it ends with the test that started it.
fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = server_user() {
        command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".to_owned()]);
    }
    command.args(["--pdeathsig", "QUIT"]).arg(program);
    command
}
