//! The one loop.
//!
//! ```text
//! Idle ── Go ──> Starting ── runtime ended well ──> Running ── process ended ──> Ending ── output read ──> Ended
//!                   └──────── runtime failed ───────────────────────────────────────────────────────────────^
//! ```

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use runtime::cgroup::Cgroup;
use runtime::wire::{Answer, EXIT_FILE, ExitStatus, Request, SOCKET_FILE, STARTED_FILE, ShimConfig, Started, now_ns};

use crate::client::{Client, Kind};
use crate::launch::{self, Console, Launched};
use crate::log::Log;
use crate::record::{self, Durable};
use crate::stdio::{self, Read, Stdio3};

/// Output still held open by others when the process has ended is read until it was quiet for so long,
const QUIET: Duration = Duration::from_millis(100);
/// and at most so long.
const ENDING: Duration = Duration::from_secs(2);
/// Without a `Go` for so long, the spawner has gone.
const IDLE: Duration = Duration::from_secs(600);
const BUFFER_BYTES: usize = 32 * 1024;

enum Phase {
    Idle { since: Instant },
    Starting { runtime: i32 },
    Running { pid: i32 },
    Ending { code: i32, since: Instant, output_at: Instant },
    Ended { status: ExitStatus },
}

#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Watch,
    Deadline,
    Console,
    Output(u8),
    Input,
    Client(usize),
}

pub struct Supervisor {
    config: ShimConfig,
    listener: UnixListener,
    signals: SignalFd,
    /// stdin of the shim, whose end is the spawner's.
    watching: bool,
    /// When the process is killed unless the spawner says before that it is to go on.
    deadline: Option<TimerFd>,
    expired: bool,
    clients: Vec<Client>,
    phase: Phase,
    stdio: Stdio3,
    console: Option<Console>,
    log: Option<Log>,
    /// Ended children not asked for yet: a short container ends before the runtime that started it.
    reaped: HashMap<i32, i32>,
    deleting: Option<i32>,
    started: Option<Answer>,
    /// Bytes for the process' stdin; clients are read only when it is empty.
    pending: Vec<u8>,
    close_input: bool,
    kill_wanted: bool,
    buffer: Vec<u8>,
}

impl Supervisor {
    pub fn new(config: ShimConfig, listener: UnixListener) -> anyhow::Result<Self> {
        listener.set_nonblocking(true).context("cannot make the socket non-blocking")?;
        let mut mask = SigSet::empty();
        // Those that end a service don't end its containers.
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            mask.add(signal);
        }
        mask.thread_block().context("cannot block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot make a signal descriptor")?;
        let log = match &config.log {
            Some(log) => Some(Log::open(log.clone()).context("cannot open the container's log")?),
            None => None,
        };
        Ok(Self {
            watching: config.watch,
            deadline: deadline(&config).context("cannot set the deadline")?,
            expired: false,
            config,
            listener,
            signals,
            clients: Vec::new(),
            phase: Phase::Idle { since: Instant::now() },
            stdio: Stdio3::default(),
            console: None,
            log,
            reaped: HashMap::new(),
            deleting: None,
            started: None,
            pending: Vec::new(),
            close_input: false,
            kill_wanted: false,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Until the process has ended, all is told and the container is deleted.
    pub fn run(mut self) -> anyhow::Result<()> {
        loop {
            for (source, flags) in self.wait()? {
                self.handle(source, flags)?;
            }
            self.feed();
            self.advance()?;
            let now = Instant::now();
            for client in &mut self.clients {
                client.flush(now);
            }
            self.clients.retain(|client| !client.is_done());
            let told = !self.clients.iter().any(Client::wants_write);
            let abandoned = matches!(self.phase, Phase::Idle { since } if now - since > IDLE);
            let gone = matches!(self.phase, Phase::Idle { .. }) && self.kill_wanted;
            if abandoned || gone || (matches!(self.phase, Phase::Ended { .. }) && told && self.deleting.is_none()) {
                let _ = std::fs::remove_file(SOCKET_FILE);
                return Ok(());
            }
        }
    }

    fn wait(&self) -> anyhow::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let stdin = std::io::stdin();
        if self.watching {
            sources.push(Source::Watch);
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        if let Some(deadline) = &self.deadline {
            sources.push(Source::Deadline);
            fds.push(PollFd::new(deadline.as_fd(), PollFlags::POLLIN));
        }
        if let Some(console) = &self.console {
            sources.push(Source::Console);
            fds.push(PollFd::new(console.listener.as_fd(), PollFlags::POLLIN));
        }
        let ending = matches!(self.phase, Phase::Ending { .. });
        // Until the runtime has ended it is not known whether these are its own words, which are nobody's output.
        let starting = matches!(self.phase, Phase::Starting { .. });
        if !starting && (ending || !self.clients.iter().any(Client::is_full)) {
            for (stream, fd) in self.stdio.outputs() {
                sources.push(Source::Output(stream));
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
        }
        if let Some(input) = self.stdio.input().filter(|_| !self.pending.is_empty()) {
            sources.push(Source::Input);
            fds.push(PollFd::new(input, PollFlags::POLLOUT));
        }
        for (at, client) in self.clients.iter().enumerate() {
            let gives_input = matches!(client.kind, Kind::Attached { stdin: true, .. });
            let held = gives_input && !self.pending.is_empty();
            if held && client.hung_up {
                continue; // It would only be told of again and again.
            }
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !client.in_ended && !held);
            flags.set(PollFlags::POLLOUT, client.wants_write());
            sources.push(Source::Client(at));
            fds.push(PollFd::new(client.fd(), flags));
        }
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        let flags = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Ok(sources.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn timeout(&self) -> PollTimeout {
        let now = Instant::now();
        let phase = match &self.phase {
            Phase::Idle { since } => Some(*since + IDLE),
            Phase::Ending { since, output_at, .. } => Some((*since + ENDING).min(*output_at + QUIET)),
            _ => None,
        };
        let first = self.clients.iter().filter_map(Client::deadline).chain(phase).min();
        match first {
            // One more, so that the deadline has passed on waking.
            Some(at) => PollTimeout::try_from(at.saturating_duration_since(now) + Duration::from_millis(1))
                .unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        }
    }

    fn handle(&mut self, source: Source, flags: PollFlags) -> anyhow::Result<()> {
        match source {
            Source::Signals => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Source::Listener => {
                while let Ok((stream, _)) = self.listener.accept() {
                    self.clients.extend(Client::new(stream));
                }
            }
            Source::Watch => {
                let mut words = [0; 64];
                match nix::unistd::read(std::io::stdin(), &mut words) {
                    Ok(1..) => {
                        if let Some(deadline) = &self.deadline {
                            arm(deadline, self.config.deadline_ms).context("cannot set the deadline")?;
                        }
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Ok(0) | Err(_) => {
                        self.watching = false;
                        self.kill_wanted = true;
                    }
                }
            }
            Source::Deadline => {
                self.deadline = None;
                self.expired = true;
                self.kill_wanted = true;
            }
            Source::Console => self.take_terminal(),
            Source::Output(stream) => self.read_output(stream),
            Source::Input => {}
            Source::Client(at) => self.handle_client(at, flags)?,
        }
        Ok(())
    }

    fn take_terminal(&mut self) {
        let Some(console) = &self.console else { return };
        let Ok((socket, _)) = console.listener.accept() else { return };
        let terminal = socket
            .set_nonblocking(false)
            .context("cannot make the console socket blocking")
            .and_then(|()| stdio::receive_terminal(&socket))
            .and_then(Stdio3::terminal);
        match terminal {
            Ok(stdio) => {
                self.stdio = stdio;
                let (rows, columns) = self.config.tty_size;
                if rows != 0 && columns != 0 {
                    self.stdio.resize(rows, columns);
                }
            }
            Err(e) => eprintln!("no terminal: {e:#}"),
        }
        self.console = None;
    }

    fn read_output(&mut self, stream: u8) {
        let Read::Bytes(n) = self.stdio.read(stream, &mut self.buffer) else { return };
        let bytes = &self.buffer[..n];
        if let Some(log) = &mut self.log {
            log.write(stream, bytes);
        }
        for client in &mut self.clients {
            client.output(stream, self.config.tty, bytes);
        }
        if let Phase::Ending { output_at, .. } = &mut self.phase {
            *output_at = Instant::now();
        }
    }

    fn handle_client(&mut self, at: usize, flags: PollFlags) -> anyhow::Result<()> {
        let client = &mut self.clients[at];
        let readable = flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP);
        if flags.contains(PollFlags::POLLERR) {
            client.broken = true;
        }
        client.hung_up |= flags.contains(PollFlags::POLLHUP);
        match client.kind {
            Kind::Asking(_) if readable => {
                if let Some((request, rest)) = client.request() {
                    match request {
                        Ok(request) => self.answer(at, request, rest)?,
                        Err(message) => client.answer_last(&Answer::Failed { message }),
                    }
                }
            }
            Kind::Attached { stdin, .. } if readable => {
                let n = client.read(&mut self.buffer);
                if stdin && self.config.open_stdin {
                    self.pending.extend_from_slice(&self.buffer[..n]);
                    self.close_input |= client.in_ended && self.config.stdin_once;
                }
                // What it sent before it went is still read.
                client.broken |= client.hung_up && client.in_ended;
            }
            _ => {
                if readable && !client.in_ended {
                    client.read(&mut self.buffer);
                }
                client.broken |= client.hung_up;
            }
        }
        Ok(())
    }

    fn answer(&mut self, at: usize, request: Request, rest: Vec<u8>) -> anyhow::Result<()> {
        let running = match self.phase {
            // Already waited for: the pid may be another's.
            Phase::Running { pid } if !self.reaped.contains_key(&pid) => Some(pid),
            _ => None,
        };
        let ended = matches!(self.phase, Phase::Ended { .. });
        let client = &mut self.clients[at];
        match request {
            Request::Go => {
                match &self.started {
                    Some(answer) => client.answer_last(answer),
                    None => client.kind = Kind::Starting,
                }
                if matches!(self.phase, Phase::Idle { .. }) {
                    self.launch()?;
                }
            }
            Request::Attach { stdin, stdout, stderr } => {
                client.answer(&Answer::Done);
                client.kind = Kind::Attached { stdin, stdout, stderr };
                if ended {
                    client.end_output();
                } else if stdin && self.config.open_stdin {
                    self.pending.extend_from_slice(&rest);
                    self.close_input |= client.in_ended && self.config.stdin_once;
                }
            }
            Request::Resize { rows, columns } => {
                self.config.tty_size = (rows, columns);
                // Before there is a terminal the size is kept for it.
                let early = running.is_none() || self.stdio.at_end();
                let done = early || self.stdio.resize(rows, columns);
                let answer = match (ended, done) {
                    (true, _) => Answer::NotRunning,
                    (false, true) => Answer::Done,
                    (false, false) => Answer::Failed { message: "the process has no terminal".into() },
                };
                client.answer_last(&answer);
            }
            Request::CloseStdin => {
                self.close_input = true;
                client.answer_last(&Answer::Done);
            }
            Request::Signal { signal } => {
                let answer = match running {
                    None => Answer::NotRunning,
                    Some(pid) => send(pid, signal),
                };
                client.answer_last(&answer);
            }
            Request::Wait => match &self.phase {
                Phase::Ended { status } => client.answer_last(&Answer::Exited(status.clone())),
                _ => client.kind = Kind::Waiting,
            },
        }
        Ok(())
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        match launch::launch(&self.config) {
            Ok(Launched { pid, stdio, console }) => {
                self.stdio = stdio;
                self.console = console;
                self.phase = Phase::Starting { runtime: pid };
                Ok(())
            }
            Err(e) => self.start_failed(format!("{e:#}"), 128),
        }
    }

    /// Gives the process what clients sent, then the end if it is due.
    fn feed(&mut self) {
        if self.stdio.input().is_some() {
            while !self.pending.is_empty() {
                match self.stdio.write(&self.pending) {
                    Some(0) => return,
                    Some(n) => drop(self.pending.drain(..n)),
                    None => self.pending.clear(),
                }
            }
            if self.close_input {
                self.stdio.close_input();
            }
        } else if !matches!(self.phase, Phase::Idle { .. } | Phase::Starting { .. }) {
            self.pending.clear();
        }
    }

    fn reap(&mut self) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.reaped.insert(pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.reaped.insert(pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => None,
            };
        }
    }

    fn advance(&mut self) -> anyhow::Result<()> {
        if let Phase::Starting { runtime } = self.phase
            && let Some(code) = self.reaped.remove(&runtime)
        {
            // The terminal is sent before the runtime ends.
            self.take_terminal();
            self.console = None;
            match (code, launch::process_pid()) {
                (0, Ok(pid)) => self.now_running(pid)?,
                (0, Err(e)) => self.start_failed(format!("{e:#}"), 128)?,
                _ => {
                    let (message, code) = launch::failure(&self.config);
                    self.start_failed(message, code)?;
                }
            }
            self.feed();
        }
        if let Phase::Running { pid } = self.phase {
            if let Some(code) = self.reaped.remove(&pid) {
                let now = Instant::now();
                self.phase = Phase::Ending { code, since: now, output_at: now };
                self.drain();
            } else if std::mem::take(&mut self.kill_wanted) {
                send(pid, libc::SIGKILL);
            }
        }
        if let Phase::Ending { code, since, output_at } = self.phase {
            let now = Instant::now();
            if self.stdio.at_end() || now - output_at >= QUIET || now - since >= ENDING {
                self.ended(code, String::new())?;
            }
        }
        if let Some(pid) = self.deleting
            && self.reaped.remove(&pid).is_some()
        {
            self.deleting = None;
        }
        // Orphans of the container that came to us end unnoticed.
        if matches!(self.phase, Phase::Running { .. }) {
            self.reaped.clear();
        }
        Ok(())
    }

    /// Most often all output is in the pipes already, and the end can be told in the same turn.
    fn drain(&mut self) {
        let streams: Vec<u8> = self.stdio.outputs().map(|(stream, _)| stream).collect();
        for stream in streams {
            // A pipe holds at most two buffers' worth; more is for later turns.
            for _ in 0..4 {
                self.read_output(stream);
            }
        }
    }

    fn now_running(&mut self, pid: i32) -> anyhow::Result<()> {
        let started = Started { pid, started_at_ns: now_ns() };
        record::write(STARTED_FILE, &started, Durable::No)?;
        self.phase = Phase::Running { pid };
        self.tell_started(Answer::Started(started));
        Ok(())
    }

    fn start_failed(&mut self, message: String, code: i32) -> anyhow::Result<()> {
        self.tell_started(Answer::StartFailed { message: message.clone(), code });
        self.stdio = Stdio3::default();
        self.ended(code, message)
    }

    fn tell_started(&mut self, answer: Answer) {
        for client in self.clients.iter_mut().filter(|client| matches!(client.kind, Kind::Starting)) {
            client.answer_last(&answer);
        }
        self.started = Some(answer);
    }

    fn ended(&mut self, code: i32, error: String) -> anyhow::Result<()> {
        let of_container = self.config.exec.is_none();
        let status = ExitStatus {
            code,
            expired: self.expired && code == 128 + libc::SIGKILL,
            oom: of_container && Cgroup::new(&self.config.cgroup_path).oom_happened(),
            finished_at_ns: now_ns(),
            error,
        };
        if let Some(log) = &mut self.log {
            log.finish();
        }
        self.stdio = Stdio3::default();
        record::write(EXIT_FILE, &status, Durable::Yes)?;
        for client in &mut self.clients {
            match client.kind {
                Kind::Waiting => client.answer_last(&Answer::Exited(status.clone())),
                Kind::Attached { .. } => client.end_output(),
                _ => {}
            }
            client.flush(Instant::now());
        }
        self.phase = Phase::Ended { status };
        if of_container && !launch::forget(&self.config) {
            self.deleting = Some(launch::delete(&self.config)?.id() as i32);
        }
        Ok(())
    }
}

/// Counts from the shim's own start, which is part of what the spawner has claimed.
fn deadline(config: &ShimConfig) -> nix::Result<Option<TimerFd>> {
    if !config.watch || config.deadline_ms == 0 {
        return Ok(None);
    }
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    arm(&timer, config.deadline_ms)?;
    Ok(Some(timer))
}

fn arm(timer: &TimerFd, after_ms: u64) -> nix::Result<()> {
    let after = TimeSpec::milliseconds(i64::try_from(after_ms).unwrap_or(i64::MAX));
    timer.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())
}

/// The process is our child and not waited for, so its pid is still its own.
fn send(pid: i32, signal: i32) -> Answer {
    // SAFETY: kill takes no pointers; a libc call since nix knows no real-time signals.
    if pid > 0 && unsafe { libc::kill(pid, signal) } == 0 {
        return Answer::Done;
    }
    match Errno::last() {
        Errno::ESRCH => Answer::NotRunning,
        e => Answer::Failed { message: format!("cannot send signal {signal}: {}", e.desc()) },
    }
}
