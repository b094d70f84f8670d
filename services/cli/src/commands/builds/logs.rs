//! `build logs` and `build attach`: a build's log from its first line, by its id.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::engine::{Engine, escape, next_chunk};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::solve::Lines;

const TICK: Duration = Duration::from_millis(500);

/// How steps are shown.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Auto,
    Plain,
    Rawjson,
}

#[derive(Args, Debug)]
pub struct Logs {
    /// Follow the log until the build is over
    #[arg(short, long)]
    follow: bool,
    /// How steps are shown
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    #[arg(value_name = "BUILD")]
    build: String,
}

#[derive(Args, Debug)]
pub struct Attach {
    /// How steps are shown
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    #[arg(value_name = "BUILD")]
    build: String,
}

impl Logs {
    pub async fn run(self, engine: &Engine) -> Outcome {
        match follow(engine, &self.build, self.progress, self.follow).await? {
            Some(failure) => {
                eprintln!("{failure}");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Attach {
    pub async fn run(self, engine: &Engine) -> Outcome {
        attach(engine, &self.build, self.progress).await
    }
}

/// Follows a build to its end, and fails as it does.
pub async fn attach(engine: &Engine, build: &str, progress: Progress) -> Outcome {
    follow(engine, build, progress, true).await?.map_or(Ok(()), Err)
}

/// Shows the log; gives what the build failed with.
async fn follow(engine: &Engine, build: &str, progress: Progress, follow: bool) -> Outcome<Option<Failure>> {
    let path = format!("/boxyard/v1/builds/{}", escape(build));
    let is_graph = engine.get(&path).value().await?["builder"] == "graph";
    let mut body = engine.get(format!("{path}/logs")).flag("follow", follow).send().await?.into_body();
    let mut shown = Shown { progress, is_graph, lines: Lines::default() };
    let mut pending = Vec::new();
    let mut ended = None;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        let chunk = tokio::select! {
            chunk = next_chunk(&mut body) => chunk?,
            _ = ticks.tick() => {
                shown.tick();
                continue;
            }
        };
        let Some(chunk) = chunk else { break };
        pending.extend_from_slice(&chunk);
        let whole = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = pending.drain(..whole).collect();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let line: Value = serde_json::from_slice(line)?;
            if let Some(message) = line["error"].as_str() {
                let code = line["code"].as_i64().and_then(|code| i32::try_from(code).ok()).filter(|code| *code != 0);
                ended = Some(Some(Failure::new(message).code(code.unwrap_or(1))));
            } else if line["end"] == true {
                ended = Some(None);
            } else {
                shown.show(&line)?;
            }
        }
    }
    output::write(shown.lines.finish().as_bytes());
    match ended {
        Some(ended) => Ok(ended),
        None if follow => Err(Failure::new("the build's log broke off")),
        None => Ok(None),
    }
}

struct Shown {
    progress: Progress,
    is_graph: bool,
    lines: Lines,
}

impl Shown {
    fn show(&mut self, line: &Value) -> Outcome {
        if let Some(text) = line["stream"].as_str().filter(|_| self.progress != Progress::Rawjson) {
            output::write(text.as_bytes());
        }
        let trace = &line["trace"];
        if !trace.is_object() {
            return Ok(());
        }
        match self.progress {
            Progress::Rawjson => output::line(trace.to_string()),
            // What the classic builder tells of its steps is in its text.
            Progress::Auto | Progress::Plain if self.is_graph => {
                output::write(self.lines.update(trace)?.as_bytes());
            }
            Progress::Auto | Progress::Plain => {}
        }
        Ok(())
    }

    fn tick(&mut self) {
        output::write(self.lines.tick().as_bytes());
    }
}
