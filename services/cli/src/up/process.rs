//! One supervised process: started, watched until it says `ready`, started again with
//! back-off when it dies, told to end.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use crate::failure::{Failure, Outcome};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A process that lived this long has started well: its next pause is short again.
const SETTLED: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Debug, Clone)]
pub struct Program {
    pub name: String,
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    /// Folder of the log files.
    pub log: PathBuf,
}

/// News of a process.
#[derive(Debug)]
pub enum News {
    Started { name: String, pid: u32 },
    Ready { name: String },
    Died { name: String, how: String },
}

/// A watched process; dropping it does not end it.
pub struct Watched {
    pub name: String,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Watched {
    /// Starts watching; news come by `news`.
    pub fn start(program: Program, news: mpsc::Sender<News>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let name = program.name.clone();
        Self { name, stop, task: tokio::spawn(watch_process(program, news, stopping)) }
    }

    /// Sends SIGTERM, and SIGKILL when it takes longer than `patience`.
    pub async fn end(self, patience: Duration) {
        let _ = self.stop.send(true);
        let mut task = self.task;
        if tokio::time::timeout(patience, &mut task).await.is_err() {
            // The second word means at once.
            self.stop.send_modify(|_| {});
            let _ = task.await;
        }
    }
}

async fn watch_process(program: Program, news: mpsc::Sender<News>, mut stopping: watch::Receiver<bool>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let how = match spawn(&program) {
            Ok(mut child) => {
                let pid = child.id().unwrap_or(0);
                let _ = news.send(News::Started { name: program.name.clone(), pid }).await;
                pass_output(&mut child, &program, news.clone());
                tokio::select! {
                    status = child.wait() => status.map_or_else(|e| e.to_string(), |s| s.to_string()),
                    _ = stopping.changed() => return end_child(child, stopping).await,
                }
            }
            Err(failure) => failure.message,
        };
        let _ = news.send(News::Died { name: program.name.clone(), how }).await;
        if began.elapsed() > SETTLED {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopping.changed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn end_child(mut child: Child, mut stopping: watch::Receiver<bool>) {
    if let Some(pid) = child.id() {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
    tokio::select! {
        _ = child.wait() => {}
        _ = stopping.changed() => drop(child.kill().await),
    }
}

fn spawn(program: &Program) -> Outcome<Child> {
    let failed = |what: &str, e: std::io::Error| Failure::new(format!("{what}: {e}"));
    let log = program.log.join(format!("{}.log", program.name));
    let errors =
        OpenOptions::new().append(true).create(true).open(&log).map_err(|e| failed("its log cannot be opened", e))?;
    let mut command = Command::new(&program.binary);
    // It is for the gateway alone, which has it in a file.
    command.env_remove("BOXYARD_DATABASE");
    // An own group: ctrl-c in the terminal reaches the supervisor only, which ends all in order.
    command.args(&program.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).process_group(0);
    command.spawn().map_err(|e| failed(&format!("{} cannot be started", program.binary.display()), e))
}

/// Standard output goes to the log, but for the line that says that it serves.
fn pass_output(child: &mut Child, program: &Program, news: mpsc::Sender<News>) {
    let Some(stdout) = child.stdout.take() else { return };
    let (name, log) = (program.name.clone(), program.log.join(format!("{}.log", program.name)));
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == "ready" {
                let _ = news.send(News::Ready { name: name.clone() }).await;
            } else if let Ok(mut file) = tokio::fs::OpenOptions::new().append(true).create(true).open(&log).await {
                let _ = file.write_all(format!("{line}\n").as_bytes()).await;
            }
        }
    });
}
