//! `worker`: the build workers.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::inspect::InspectOne;
use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome, for_each};
use crate::format::table::{Listing, row};
use crate::output;
use crate::up;

/// A drained worker that still has work is looked at so often.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Subcommand, Debug)]
pub enum Worker {
    /// List build workers
    #[command(visible_alias = "list")]
    Ls(List),
    /// Display detailed information on one or more build workers
    Inspect(InspectOne),
    /// Have build workers take no new builds and steps; those that they have go on
    Drain(Drain),
    /// Have drained build workers take builds again
    Undrain(Workers),
    /// Set and remove labels of a build worker
    Label(Label),
    /// Start one more build worker of a Boxyard that runs on this machine
    Start(up::StartWorker),
    /// Stop a build worker that 'worker start' has started; other workers go on with its builds
    Stop(up::StopWorker),
}

#[derive(Args, Debug)]
pub struct List {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Args, Debug)]
pub struct Workers {
    #[arg(required = true, value_name = "WORKER")]
    workers: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Drain {
    #[command(flatten)]
    workers: Workers,
    /// Return when they have nothing to do any more
    #[arg(long)]
    wait: bool,
}

#[derive(Args, Debug)]
pub struct Label {
    #[arg(value_name = "WORKER")]
    worker: String,
    /// NAME=VALUE sets a label, NAME- removes it
    #[arg(required = true, value_name = "LABEL")]
    labels: Vec<String>,
}

const HEADERS: &[(&str, &str)] = &[
    ("ID", "WORKER ID"),
    ("State", "STATE"),
    ("Platforms", "PLATFORMS"),
    ("Busy", "BUSY"),
    ("Slots", "SLOTS"),
    ("Builds", "BUILDS"),
    ("Labels", "LABELS"),
    ("Host", "HOST"),
    ("Version", "VERSION"),
];

impl Worker {
    pub async fn run(self, engine: &Engine) -> Outcome {
        match self {
            Self::Ls(command) => command.run(engine).await,
            Self::Inspect(command) => command.run(engine, "worker").await,
            Self::Drain(command) => command.run(engine).await,
            Self::Undrain(command) => command.order(engine, "undrain").await,
            Self::Label(command) => command.run(engine).await,
            Self::Start(command) => command.run().await,
            Self::Stop(command) => command.run().await,
        }
    }
}

impl List {
    async fn run(self, engine: &Engine) -> Outcome {
        let workers = engine.get("/boxyard/v1/workers").value().await?;
        let rows: Vec<Value> = workers["items"].as_array().into_iter().flatten().map(shown).collect();
        if self.quiet && self.format.is_none() {
            rows.iter().filter_map(|row| row["ID"].as_str()).for_each(output::line);
            return Ok(());
        }
        let default = "{{.ID}}\t{{.State}}\t{{.Platforms}}\t{{.Busy}}/{{.Slots}}\t{{.Builds}}\t{{.Labels}}".to_owned();
        Listing { kind: "workerContext", default, headers: HEADERS, rows }.print(self.format.as_deref())
    }
}

fn shown(worker: &Value) -> Value {
    let platforms = worker["platforms"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let number = |name: &str| worker[name].as_u64().unwrap_or(0).to_string().into();
    let fields = [
        ("ID", worker["id"].clone()),
        ("State", state(worker).into()),
        ("Platforms", platforms.collect::<Vec<_>>().join(",").into()),
        ("Busy", number("busy")),
        ("Slots", number("slots")),
        ("Builds", number("running")),
        ("Labels", super::joined_labels(&worker["labels"]).into()),
        ("Host", worker["host"].clone()),
        ("Version", worker["version"].clone()),
    ];
    row(&fields, Some(&worker["labels"]))
}

fn state(worker: &Value) -> &'static str {
    match (worker["alive"] == true, worker["drained"] == true) {
        (false, _) => "lost",
        (true, true) => "drained",
        (true, false) => "ready",
    }
}

impl Workers {
    async fn order(&self, engine: &Engine, action: &str) -> Outcome {
        for_each(&self.workers, async |id| {
            engine.post(format!("/boxyard/v1/workers/{}/{action}", escape(&id))).send().await?;
            output::line(id);
            Ok(())
        })
        .await
    }
}

impl Drain {
    async fn run(self, engine: &Engine) -> Outcome {
        self.workers.order(engine, "drain").await?;
        if !self.wait {
            return Ok(());
        }
        for_each(&self.workers.workers, async |id| {
            let path = format!("/boxyard/v1/workers/{}", escape(&id));
            loop {
                let worker = engine.get(path.clone()).value().await?;
                if worker["alive"] != true || (worker["busy"] == 0 && worker["running"] == 0) {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
    }
}

impl Label {
    async fn run(self, engine: &Engine) -> Outcome {
        let labels = changes(&self.labels)?;
        let call = engine.post(format!("/boxyard/v1/workers/{}/labels", escape(&self.worker)));
        call.json(&json!({"labels": labels})).send().await?;
        output::line(self.worker);
        Ok(())
    }
}

fn changes(words: &[String]) -> Outcome<Map<String, Value>> {
    let change = |word: &String| match (word.split_once('='), word.strip_suffix('-')) {
        (Some((name, value)), _) if !name.is_empty() => Ok((name.to_owned(), Value::from(value))),
        (None, Some(name)) if !name.is_empty() => Ok((name.to_owned(), Value::Null)),
        _ => Err(Failure::new(format!("{word:?} is no label: write NAME=VALUE, or NAME- to remove it"))),
    };
    words.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        for (words, wanted) in [
            (
                &["disk=ssd", "zone-", "note=", "a=b-"][..],
                Some(json!({"disk": "ssd", "zone": null, "note": "", "a": "b-"})),
            ),
            (&["disk"], None),
            (&["=x"], None),
            (&["-"], None),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(changes(&words).ok().map(Value::from), wanted, "{words:?}");
        }
    }
}
