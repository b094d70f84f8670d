//! One container's (or exec's) parent: holds its stdio, writes its log, records its exit status, and outlives a restart
//! of the service that spawned it.
//!
//! Must not: use the bus, decide anything, or have a second thread. Entry point: [`supervisor::Supervisor::run`], one
//! poll loop. Its folder and socket are described by `runtime::wire`.
//! Invariants: the process starts only at `Go`; its end is on disk before anyone is told; a client never holds the
//! process up for longer than `client::STALL`.

// fork with a closure, setting a terminal's size and signals' masks have no safe form.
#![allow(unsafe_code)]

mod client;
mod launch;
mod log;
mod oom;
mod record;
mod stdio;
mod supervisor;

use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use runtime::wire::{CONFIG_FILE, IDENTITY_FILE, Identity, LOCK_FILE, SOCKET_FILE, ShimConfig};

fn main() -> anyhow::Result<()> {
    // SAFETY: nothing of this process is open yet but 0 to 2; a descriptor that the spawner let through would be held
    // as long as the container lives.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    let clean_up = args.first().is_some_and(|arg| arg == "--clean-up");
    let dir = PathBuf::from(args.pop().context("usage: boxyard-shim [--clean-up] DIR")?);
    // Paths in here are relative from now on, so that no length limit of sockets is met.
    std::env::set_current_dir(&dir).with_context(|| format!("cannot enter {}", dir.display()))?;
    let lock = std::fs::File::create(LOCK_FILE).context("cannot make the lock")?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e).context("cannot lock")?;
    let text = std::fs::read(CONFIG_FILE).context("cannot read the config")?;
    let config: ShimConfig = serde_json::from_slice(&text).context("cannot parse the config")?;

    if clean_up {
        return launch::clean_up(&config);
    }

    // Own session: no terminal and no signal of the spawner's group reaches this process.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true).context("cannot become a subreaper")?;
    umask(Mode::from_bits_truncate(0o022));
    oom::leave_service_cgroup();

    let listener = UnixListener::bind(SOCKET_FILE).context("cannot listen")?;
    let identity = Identity::of(std::process::id() as i32).context("cannot read the own identity")?;
    record::write(IDENTITY_FILE, &identity, record::Durable::No)?;
    let supervisor = supervisor::Supervisor::new(config, listener)?;
    say_ready().context("cannot tell the spawner")?;
    supervisor.run()
}

/// One byte on stdout, which then becomes /dev/null, so that the spawner sees its end.
fn say_ready() -> anyhow::Result<()> {
    nix::unistd::write(std::io::stdout(), b"r")?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}
