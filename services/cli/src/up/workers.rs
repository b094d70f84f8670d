//! Build workers that come and go while a Boxyard runs: they are written down in the data folder, and the supervisor is
//! told to look.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::cluster::{self, Kind, Member};
use super::config::{self, Plan};
use super::status;
use crate::failure::{Failure, Outcome};
use crate::output;

/// How long a worker may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// A worker besides those of `up --workers`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    pub name: String,
    #[serde(default)]
    pub slots: Option<u32>,
    #[serde(default)]
    pub labels: Vec<String>,
}

#[derive(Args, Debug)]
pub struct StartWorker {
    /// Its name, unique in this Boxyard: letters, digits and hyphens
    #[arg(long)]
    name: Option<String>,
    /// Builds and steps at once
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
    /// What builds may ask for, NAME=VALUE (may be repeated)
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Folder of the running Boxyard
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct StopWorker {
    /// Its name
    #[arg(value_name = "WORKER")]
    name: String,
    /// Folder of the running Boxyard
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl Extra {
    pub fn member(&self) -> Member {
        Member { kind: Kind::Worker, name: self.name.clone() }
    }

    /// What the supervisor calls its process.
    pub fn service(&self) -> String {
        format!("build-worker-{}", self.name)
    }

    /// Its flags besides those that all workers have.
    pub fn flags(&self) -> Vec<String> {
        let slots = self.slots.iter().flat_map(|slots| ["--slots".to_owned(), slots.to_string()]);
        slots.chain(self.labels.iter().flat_map(|label| ["--label".to_owned(), label.clone()])).collect()
    }
}

impl StartWorker {
    pub async fn run(self) -> Outcome {
        let data_dir = config::data_dir(self.data_dir)?;
        let extra = {
            let _alone = alone(&data_dir)?;
            let mut plan = running(&data_dir)?;
            let taken = plan.members();
            let is_taken = |name: &str| taken.iter().any(|other| other.kind == Kind::Worker && other.name == name);
            let free = || (1..).map(|n| format!("{}-x{n}", plan.kept.instance)).find(|name| !is_taken(name));
            let name = self.name.or_else(free).unwrap_or_default();
            let name = Member::new(Kind::Worker, &name)?.name;
            if is_taken(&name) {
                return Err(Failure::new(format!("there is a build worker {name} already")));
            }
            if let Some(wrong) =
                self.labels.iter().find(|label| label.split_once('=').is_none_or(|(n, _)| n.is_empty()))
            {
                return Err(Failure::new(format!("--label {wrong}: write NAME=VALUE")));
            }
            let extra = Extra { name, slots: self.slots, labels: self.labels };
            plan.kept.extra_workers.push(extra.clone());
            change(&plan)?;
            extra
        };
        let log = data_dir.join(format!("logs/{}.log", extra.service()));
        until(&format!("build worker {} to be ready", extra.name), &log, || {
            status::state(&data_dir, &extra.service()).is_some_and(|state| state == "ready")
        })
        .await?;
        output::line(extra.name);
        Ok(())
    }
}

impl StopWorker {
    pub async fn run(self) -> Outcome {
        let data_dir = config::data_dir(self.data_dir)?;
        let extra = {
            let _alone = alone(&data_dir)?;
            let mut plan = running(&data_dir)?;
            let at = plan.kept.extra_workers.iter().position(|extra| extra.name == self.name);
            let at = at.ok_or_else(|| {
                Failure::new(format!("'worker start' has started no build worker {} here", self.name))
                    .hint("The others are as many as 'boxyard up --workers' says.")
            })?;
            let extra = plan.kept.extra_workers.remove(at);
            // It keeps its user until it has ended: what it does last still counts.
            plan.write_kept()?;
            status::signal_supervisor(&data_dir, Signal::SIGUSR1);
            extra
        };
        let log = data_dir.join(format!("logs/{}.log", extra.service()));
        let ended = || status::state(&data_dir, &extra.service()).is_none();
        until(&format!("build worker {} to end", extra.name), &log, ended).await?;
        let _alone = alone(&data_dir)?;
        let member = extra.member();
        let plan = Plan::kept(&data_dir)?;
        if !plan.members().contains(&member) {
            // The next one of this name gets new secrets.
            for secret in [member.user(), member.token()] {
                let _ = std::fs::remove_file(data_dir.join("secrets").join(secret));
            }
            plan.write_users()?;
            cluster::reload_nats(&data_dir);
            let _ = std::fs::remove_dir_all(data_dir.join(member.user()));
        }
        output::line(extra.name);
        Ok(())
    }
}

/// One of these commands at a time changes what is written down.
fn alone(data_dir: &Path) -> Outcome<Flock<std::fs::File>> {
    let path = data_dir.join("workers.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| Failure::new(error.to_string()))
}

/// What a running Boxyard keeps.
fn running(data_dir: &Path) -> Outcome<Plan> {
    if !status::is_running(data_dir) {
        return Err(Failure::new(format!("no Boxyard runs on {}", data_dir.display()))
            .hint(format!("Start it with 'boxyard up --data-dir {}'.", data_dir.display())));
    }
    let plan = Plan::kept(data_dir)?;
    if plan.joined.is_some() {
        return Err(Failure::new(format!("{} has joined a cluster", data_dir.display()))
            .hint("Let a worker in with 'boxyard cluster add worker' on its head, and 'boxyard cluster join' here."));
    }
    Ok(plan)
}

/// Writes down what is wanted, lets the bus and the layer store know, and has the supervisor look.
fn change(plan: &Plan) -> Outcome {
    plan.write_kept()?;
    plan.write_users()?;
    cluster::reload_nats(&plan.data_dir);
    status::signal_supervisor(&plan.data_dir, Signal::SIGUSR1);
    Ok(())
}

async fn until(what: &str, log: &Path, done: impl Fn() -> bool) -> Outcome {
    let patience = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > patience {
            return Err(Failure::new(format!("waited {} seconds for {what}", PATIENCE.as_secs()))
                .hint(format!("See {}", log.display())));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
