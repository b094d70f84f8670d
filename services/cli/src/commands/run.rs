//! `run`: create, attach, wait, start, in the order that loses neither output nor exit code.

use std::io::{IsTerminal, stdin};

use clap::Args;
use serde_json::Value;

use super::create::{container_create, write_cidfile};
use crate::create::ContainerOptions;
use crate::create::options::Streams;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::session::{End, Session, follow_size, proxy_signals};
use crate::{output, terminal};

#[derive(Args, Debug)]
pub struct Run {
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Proxy received signals to the process
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    #[command(flatten)]
    container: ContainerOptions,
}

const HINT: &str = "Run 'boxyard run --help' for more information";

impl Run {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let prepare = |f: Failure| Failure { message: format!("boxyard: {}", f.message), ..f.code(125) }.hint(HINT);
        let streams = self.container.streams(self.detach)?;
        if !self.detach {
            terminal::check_tty(streams.stdin, self.container.tty)?;
        }
        let body = self.container.body(streams).map_err(prepare)?;
        let id = container_create(engine, &self.container, &body).await.map_err(prepare)?;
        write_cidfile(&self.container, &id)?;
        let started =
            if self.detach { self.detached(engine, &id).await } else { self.attached(engine, &id, streams).await };
        started.map_err(|f| if f.status.is_some() { Failure { code: start_code(&f.message), ..prepare(f) } } else { f })
    }

    async fn detached(&self, engine: &Engine, id: &str) -> Outcome {
        engine.post(format!("/containers/{id}/start")).send().await?;
        output::line(id);
        Ok(())
    }

    async fn attached(&self, engine: &Engine, id: &str, streams: Streams) -> Outcome {
        let tty = self.container.tty;
        let run = Attached {
            streams,
            tty,
            is_removed: self.container.rm,
            detach_keys: self.detach_keys.as_deref(),
            proxies_signals: self.sig_proxy && !tty,
        };
        run.run(engine, id).await
    }
}

/// How a created container is started and shown until its end.
pub struct Attached<'a> {
    pub streams: Streams,
    pub tty: bool,
    /// The daemon removes it at its end.
    pub is_removed: bool,
    pub detach_keys: Option<&'a str>,
    pub proxies_signals: bool,
}

impl Attached<'_> {
    /// Fails with the container's exit code.
    pub async fn run(self, engine: &Engine, id: &str) -> Outcome {
        let Self { streams, tty, is_removed, detach_keys, proxies_signals } = self;
        let mut attach = engine.post(format!("/containers/{id}/attach")).query("stream", 1);
        attach = attach.flag("stdin", streams.stdin).flag("stdout", streams.stdout).flag("stderr", streams.stderr);
        let raw = attach.maybe("detachKeys", detach_keys).hijack().await?;
        let condition = if is_removed { "removed" } else { "next-exit" };
        // The headers come at once: from here on no exit can be missed.
        let wait = engine.post(format!("/containers/{id}/wait")).query("condition", condition).send().await?;
        if let Err(failure) = engine.post(format!("/containers/{id}/start")).send().await {
            if is_removed {
                let _ = crate::engine::read_all(wait).await;
            }
            return Err(failure);
        }
        let session = Session {
            tty,
            stdin: streams.stdin,
            output: streams.stdout || streams.stderr,
            detach_keys: detach_keys.map(str::to_owned),
        };
        let resize = format!("/containers/{id}/resize");
        let end = tokio::select! {
            end = session.relay(raw) => end?,
            () = follow_size(engine, &resize), if tty && stdin().is_terminal() => End::Closed,
            () = proxy_signals(engine, id), if proxies_signals => End::Closed,
        };
        if end == End::Detached {
            return Ok(());
        }
        let status: Value = serde_json::from_slice(&crate::engine::read_all(wait).await?)?;
        exit_status(&status)
    }
}

/// The answer of `wait` as this command's end.
pub fn exit_status(status: &Value) -> Outcome {
    if let Some(message) = status["Error"]["Message"].as_str().filter(|m| !m.is_empty()) {
        return Err(Failure::new(format!("Error waiting for container: {message}")).code(125));
    }
    match status["StatusCode"].as_i64() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::exit(code as i32)),
        None => Err(Failure::new("the daemon did not say how the container ended").code(125)),
    }
}

/// 127 for a command that is not there, 126 for one that cannot run, else 125.
pub fn start_code(message: &str) -> i32 {
    let message = message.to_ascii_lowercase();
    let has = |text: &str| message.contains(text);
    match () {
        () if has("executable file not found") || has("no such file or directory") || has("system cannot find") => 127,
        () if has("permission denied") || has("is a directory") => 126,
        () => 125,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        assert_eq!(start_code("exec: \"x\": executable file not found in $PATH: unknown"), 127);
        assert_eq!(start_code("exec: \"/etc\": permission denied: unknown"), 126);
        assert_eq!(start_code("no space left"), 125);
        assert!(exit_status(&serde_json::json!({"StatusCode": 0})).is_ok());
        assert_eq!(exit_status(&serde_json::json!({"StatusCode": 3})).expect_err("fails").code, 3);
    }
}
