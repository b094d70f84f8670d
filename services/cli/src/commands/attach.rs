//! `attach` and `start`.

use std::io::{IsTerminal, stdin};

use clap::Args;
use serde_json::Value;

use super::run::exit_status;
use crate::engine::{Engine, escape, read_all};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::session::{End, Session, follow_size, proxy_signals};

#[derive(Args, Debug)]
pub struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    container: String,
}

impl Attach {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let name = escape(&self.container);
        let container = engine.get(format!("/containers/{name}/json")).value().await?;
        let state = &container["State"];
        if state["Running"] != true {
            return Err(Failure::new("You cannot attach to a stopped container, start it first"));
        }
        if state["Paused"] == true {
            return Err(Failure::new("You cannot attach to a paused container, unpause it first"));
        }
        if state["Restarting"] == true {
            return Err(Failure::new("You cannot attach to a restarting container, wait until it is running"));
        }
        let streams = Attached {
            container: &container,
            stdin: !self.no_stdin && container["Config"]["OpenStdin"] == true,
            detach_keys: self.detach_keys.clone(),
            sig_proxy: self.sig_proxy,
        };
        streams.follow(engine, false).await
    }
}

#[derive(Args, Debug)]
pub struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Start {
    pub async fn run(self, engine: &Engine) -> Outcome {
        if !self.attach && !self.interactive {
            return start_all(engine, &self.containers).await;
        }
        let [name] = self.containers.as_slice() else {
            return Err(Failure::new("you cannot start and attach multiple containers at once"));
        };
        let container = engine.get(format!("/containers/{}/json", escape(name))).value().await?;
        let streams = Attached {
            container: &container,
            stdin: self.interactive && container["Config"]["OpenStdin"] == true,
            detach_keys: self.detach_keys.clone(),
            sig_proxy: true,
        };
        streams.follow(engine, true).await
    }
}

async fn start_all(engine: &Engine, names: &[String]) -> Outcome {
    let mut failed = Vec::new();
    for name in names {
        match engine.post(format!("/containers/{}/start", escape(name))).send().await {
            Ok(_) => output::line(name),
            Err(failure) => {
                eprintln!("{failure}");
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("Error: failed to start containers: {}", failed.join(", "))))
}

/// One container's streams and its end.
struct Attached<'a> {
    container: &'a Value,
    stdin: bool,
    detach_keys: Option<String>,
    sig_proxy: bool,
}

impl Attached<'_> {
    async fn follow(self, engine: &Engine, start: bool) -> Outcome {
        let id = self.container["Id"].as_str().unwrap_or_default();
        let tty = self.container["Config"]["Tty"] == true;
        crate::terminal::check_tty(self.stdin, tty)?;
        let call = engine.post(format!("/containers/{id}/attach")).query("stream", 1).flag("stdin", self.stdin);
        let call = call.query("stdout", 1).query("stderr", 1).maybe("detachKeys", self.detach_keys.as_deref());
        let raw = call.hijack().await?;
        let removed = self.container["HostConfig"]["AutoRemove"] == true;
        let condition = match (start, removed) {
            (_, true) => "removed",
            (true, false) => "next-exit",
            (false, false) => "not-running",
        };
        let wait = engine.post(format!("/containers/{id}/wait")).query("condition", condition).send().await?;
        if start {
            engine.post(format!("/containers/{id}/start")).send().await?;
        }
        let session = Session { tty, stdin: self.stdin, output: true, detach_keys: self.detach_keys.clone() };
        let resize = format!("/containers/{id}/resize");
        let end = tokio::select! {
            end = session.relay(raw) => end?,
            () = follow_size(engine, &resize), if tty && stdin().is_terminal() => End::Closed,
            () = proxy_signals(engine, id), if self.sig_proxy && !tty => End::Closed,
        };
        if end == End::Detached {
            return Err(Failure::new("read escape sequence"));
        }
        exit_status(&serde_json::from_slice(&read_all(wait).await?)?)
    }
}
