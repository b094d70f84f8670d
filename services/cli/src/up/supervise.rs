//! The supervisor: NATS, then the layer store and the gateway, then all others; restarts
//! what dies; ends all in the opposite order.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::config::Plan;
use super::nats;
use super::process::{News, Program, Watched};
use super::status::{Board, Entry, end_leftovers, start_time};
use crate::failure::{Failure, Outcome};
use crate::output;

/// How long everything may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// A node stops its containers before it ends.
const NODE_PATIENCE: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs until a signal.
pub async fn run(mut plan: Plan) -> Outcome {
    let beside = std::env::current_exe()?.parent().unwrap_or(Path::new(".")).to_owned();
    std::fs::create_dir_all(&plan.data_dir).map_err(|e| Failure::new(format!("{}: {e}", plan.data_dir.display())))?;
    let _lock = lock(&plan.data_dir)?;
    let server = if plan.joined.is_none() { Some(nats::find(&beside)?) } else { None };
    end_leftovers(&plan.data_dir).await;
    // An old board says `ready` of processes that are gone.
    let _ = std::fs::remove_file(plan.data_dir.join("status.json"));
    plan.prepare()?;
    std::fs::write(plan.data_dir.join("boxyard.pid"), std::process::id().to_string())?;
    let mut supervisor = Supervisor::new(&plan)?;
    let server = server.map(|(server, version)| {
        supervisor.board.versions.insert("nats".into(), version);
        server
    });
    let mut ended = Signals::new()?;
    let started = tokio::select! {
        started = supervisor.start(&plan, server, &beside) => started,
        () = ended.next() => Err(Failure::exit(130)),
    };
    let result = match started {
        Ok(()) => {
            supervisor.board.ready = true;
            supervisor.board.write();
            output::line(plan.greeting());
            supervisor.watch(&mut ended, &plan.data_dir, &beside).await;
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    tokio::select! {
        () = supervisor.stop(&plan) => {}
        // A second signal leaves at once.
        () = ended.next() => {}
    }
    let _ = std::fs::remove_file(plan.data_dir.join("boxyard.pid"));
    let _ = std::fs::remove_file(plan.data_dir.join("status.json"));
    result
}

/// The folder's lock lives as long as the file is open, even over a kill -9.
fn lock(data_dir: &Path) -> Outcome<Flock<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join("boxyard.lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Failure::new(format!("another Boxyard already runs on {}", data_dir.display()))
            .hint(format!("See it with 'boxyard status --data-dir {}'.", data_dir.display()))
    })
}

/// How the names of build workers begin.
const WORKERS: &str = "build-worker";

struct Supervisor {
    /// In the order of their start.
    watched: Vec<Watched>,
    sender: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    ready: HashMap<String, bool>,
    board: Board,
    /// Somebody has written down other workers.
    changes: tokio::signal::unix::Signal,
}

impl Supervisor {
    fn new(plan: &Plan) -> Outcome<Self> {
        let (sender, news) = mpsc::channel(64);
        Ok(Self {
            watched: Vec::new(),
            sender,
            news,
            ready: HashMap::new(),
            board: Board::new(&plan.data_dir, &plan.kept.hosts),
            changes: signal(SignalKind::user_defined1())?,
        })
    }

    async fn start(&mut self, plan: &Plan, server: Option<PathBuf>, beside: &Path) -> Outcome {
        let programs = plan.programs(beside);
        if let Some(missing) = programs.iter().find(|p| !p.binary.is_file()) {
            return Err(Failure::new(format!("{} is missing", missing.binary.display()))
                .hint("All programs of Boxyard lie in one folder; build them with 'make build'."));
        }
        let config = plan.data_dir.join("nats.conf").display().to_string();
        let log = plan.data_dir.join("logs");
        if let Some(binary) = server {
            self.watch_one(Program { name: "nats".into(), binary, arguments: vec!["-c".into(), config], log });
            self.wait_for_nats(plan.nats_address()).await?;
        }
        let (first, rest): (Vec<_>, Vec<_>) =
            programs.into_iter().partition(|p| ["layer-store", "gateway"].contains(&p.name.as_str()));
        for program in first {
            let name = program.name.clone();
            self.watch_one(program);
            self.wait_ready(&[name], plan).await?;
        }
        let names: Vec<_> = rest.iter().map(|p| p.name.clone()).collect();
        rest.into_iter().for_each(|p| self.watch_one(p));
        self.wait_ready(&names, plan).await
    }

    fn watch_one(&mut self, program: Program) {
        self.watched.push(Watched::start(program, self.sender.clone()));
    }

    async fn wait_for_nats(&mut self, address: std::net::SocketAddr) -> Outcome {
        let greeted = async {
            loop {
                if let Ok(mut stream) = tokio::net::TcpStream::connect(address).await {
                    let mut hello = [0; 4];
                    if stream.read_exact(&mut hello).await.is_ok() && &hello == b"INFO" {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let greeted = tokio::time::timeout(START_PATIENCE, greeted).await;
        while let Ok(news) = self.news.try_recv() {
            self.take(&news);
        }
        greeted.map_err(|_| {
            Failure::new("nats-server did not start")
                .hint(format!("See {}/logs/nats.log", self.board.folder().display()))
        })
    }

    async fn wait_ready(&mut self, names: &[String], plan: &Plan) -> Outcome {
        let until = tokio::time::Instant::now() + START_PATIENCE;
        let mut deaths = 0;
        while let Some(waiting) = names.iter().find(|n| !self.ready.contains_key(*n)).cloned() {
            let log = plan.data_dir.join(format!("logs/{waiting}.log"));
            let hint = format!("See {}", log.display());
            match tokio::time::timeout_at(until, self.news.recv()).await {
                Err(_) | Ok(None) => {
                    return Err(Failure::new(format!(
                        "{waiting} was not ready after {} seconds",
                        START_PATIENCE.as_secs()
                    ))
                    .hint(hint));
                }
                Ok(Some(news)) => {
                    if let News::Died { name, how } = &news {
                        deaths += 1;
                        if deaths >= 5 {
                            return Err(Failure::new(format!("{name} does not start: {how}"))
                                .hint(format!("See {}/logs/{name}.log", plan.data_dir.display())));
                        }
                    }
                    self.take(&news);
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, news: &News) {
        match news {
            News::Started { name, pid } => {
                let restarts = self.board.entries.iter().find(|e| &e.name == name).map_or(0, |e| e.restarts + 1);
                self.board.entries.retain(|e| &e.name != name);
                let entry = Entry {
                    name: name.clone(),
                    pid: *pid,
                    start_time: start_time(*pid).unwrap_or(0),
                    restarts,
                    state: "starting".into(),
                };
                self.board.entries.push(entry);
            }
            News::Ready { name } => {
                self.ready.insert(name.clone(), true);
                self.set_state(name, "ready");
            }
            News::Died { name, how } => {
                output::error(format!("{name} ended ({how}) and is started again\n").as_bytes());
                self.set_state(name, "down");
            }
        }
        if let News::Started { name, .. } = news
            && name == "nats"
        {
            self.set_state("nats", "ready");
        }
        self.board.write();
    }

    fn set_state(&mut self, name: &str, state: &str) {
        if let Some(entry) = self.board.entries.iter_mut().find(|e| e.name == name) {
            entry.state = state.to_owned();
        }
    }

    /// Restarts happen in the processes' own tasks; here they are only written down.
    async fn watch(&mut self, ended: &mut Signals, data_dir: &Path, beside: &Path) {
        loop {
            tokio::select! {
                () = ended.next() => return,
                _ = self.changes.recv() => {
                    if let Err(failure) = self.adjust(data_dir, beside).await {
                        output::error(format!("{failure}\n").as_bytes());
                    }
                }
                news = self.news.recv() => match news {
                    Some(news) => self.take(&news),
                    None => return,
                },
            }
        }
    }

    /// Starts and ends build workers, as what is written down says now.
    async fn adjust(&mut self, data_dir: &Path, beside: &Path) -> Outcome {
        let programs = Plan::kept(data_dir)?.programs(beside);
        let wanted: Vec<_> = programs.into_iter().filter(|p| p.name.starts_with(WORKERS)).collect();
        let is_over = |w: &Watched| w.name.starts_with(WORKERS) && !wanted.iter().any(|p| p.name == w.name);
        let (over, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.watched).into_iter().partition(is_over);
        self.watched = kept;
        for program in wanted {
            if !self.watched.iter().any(|w| w.name == program.name) {
                self.watch_one(program);
            }
        }
        for worker in over {
            let name = worker.name.clone();
            worker.end(PATIENCE).await;
            self.ready.remove(&name);
            self.board.entries.retain(|entry| entry.name != name);
        }
        self.board.write();
        Ok(())
    }

    /// Workers, node, sync and store first; the gateway last but for NATS.
    async fn stop(&mut self, plan: &Plan) {
        let _ = std::fs::write(plan.stop_mark(), b"");
        let mut rest: Vec<Watched> = std::mem::take(&mut self.watched);
        let mut take = |wanted: &dyn Fn(&str) -> bool| -> Vec<Watched> {
            let (found, left) = std::mem::take(&mut rest).into_iter().partition(|w| wanted(&w.name));
            rest = left;
            found
        };
        let groups = [
            take(&|n| n.starts_with(WORKERS)),
            take(&|n| n == "node"),
            take(&|n| n == "registry-sync" || n == "layer-store"),
            take(&|n| n == "gateway"),
            take(&|_| true),
        ];
        for (i, group) in groups.into_iter().enumerate() {
            let patience = if i == 1 { NODE_PATIENCE } else { PATIENCE };
            futures::future::join_all(group.into_iter().map(|w| w.end(patience))).await;
        }
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Outcome<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
