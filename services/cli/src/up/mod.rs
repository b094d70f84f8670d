//! A whole Boxyard on one machine: `up` supervises its processes, `down` ends them,
//! `status` shows them. Nothing here speaks on the bus; a process says `ready` on its
//! standard output, and what `status` shows is what the supervisor wrote down.

mod caps;
mod cluster;
mod config;
mod nats;
mod own_registry;
mod process;
mod registries;
mod status;
mod supervise;
mod tls;
mod workers;

use std::path::PathBuf;

use clap::Args;

pub use cluster::Cluster;
pub use workers::{StartWorker, StopWorker};

use crate::failure::Outcome;

#[derive(Args, Debug, Clone, Default)]
pub struct Up {
    /// Folder for everything that this Boxyard keeps
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where the API listens: unix://PATH or tcp://IP:PORT (may be repeated)
    #[arg(long = "host", id = "listen")]
    hosts: Vec<String>,
    /// Number of build workers
    #[arg(long)]
    workers: Option<u32>,
    /// Database of images, containers and builds: sqlite: (a file in the data folder) or postgres://USER:PASSWORD@HOST/NAME.
    /// A password on the command line can be seen by others on this machine, so give it by the environment
    #[arg(long, value_name = "URL", env = "BOXYARD_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Return when everything is ready
    #[arg(short, long)]
    detach: bool,
    /// Start no node: nothing can be run on this machine
    #[arg(long)]
    no_node: bool,
    /// Registry that is asked first for docker.io's images, http(s)://HOST[:PORT] (may be repeated; empty: none)
    #[arg(long = "registry-mirror", value_name = "URL")]
    registry_mirrors: Option<Vec<String>>,
    /// Registry that may be reached without TLS: HOST[:PORT] or a network (may be repeated; empty: none)
    #[arg(long = "insecure-registry", value_name = "REGISTRY")]
    insecure_registries: Option<Vec<String>>,
    #[command(flatten)]
    caps: caps::Caps,
    #[command(flatten)]
    registry: own_registry::OwnRegistry,
    #[command(flatten)]
    tls: tls::Files,
    /// Allow an API without TLS on an address that others can reach
    #[arg(long)]
    insecure_api: bool,
}

#[derive(Args, Debug)]
pub struct Down {
    /// Folder of the Boxyard to stop
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Status {
    /// Folder of the Boxyard to show
    #[arg(long, env = "BOXYARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl Up {
    /// `up` with nothing but its folder.
    fn of(data_dir: PathBuf, detach: bool) -> Self {
        Self { data_dir: Some(data_dir), detach, ..Self::default() }
    }

    pub async fn run(self) -> Outcome {
        let plan = config::Plan::new(&self)?;
        if self.detach { status::detach(&self, &plan).await } else { supervise::run(plan).await }
    }
}

impl Down {
    pub async fn run(self) -> Outcome {
        status::down(&config::data_dir(self.data_dir)?).await
    }
}

impl Status {
    pub async fn run(self) -> Outcome {
        status::show(&config::data_dir(self.data_dir)?)
    }
}
