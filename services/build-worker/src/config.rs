use std::path::PathBuf;

use service::{BusArgs, MachineArgs, StoreArgs};

const HELP: &str = "\
It runs as root, with crun (or runc) and nft on PATH and boxyard-shim beside it, and dials out only. `boxyard cluster \
join` gives it all of this. The bus user is worker-ID. It shares --machine-dir and --instance with the machine's node, \
where there is one.";

/// Settings of a build worker.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "boxyard-build-worker",
    version,
    about = "Plans Dockerfile builds and runs their steps",
    after_help = HELP
)]
pub struct Config {
    #[command(flatten)]
    pub bus: BusArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Id of this worker, unique in the cluster.
    #[arg(long, env = "BOXYARD_WORKER_ID")]
    pub id: String,
    /// Folder of builds in progress; what a killed worker left in it is removed at the next start.
    #[arg(long, env = "BOXYARD_WORKER_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Builds at once, and steps of builds that other workers have.
    #[arg(long, env = "BOXYARD_WORKER_SLOTS", default_value_t = 2)]
    pub slots: u32,
    /// Bytes of content that unpacked layers, contexts and cache mounts of all its workers may take on this machine while
    /// nobody uses them; what was used longest ago goes first. 0: half of the disk.
    #[arg(long, env = "BOXYARD_WORKER_CACHE_BYTES", default_value_t = 0)]
    pub cache_bytes: u64,
    /// What builds may ask for, NAME=VALUE (may be repeated).
    #[arg(long = "label", env = "BOXYARD_WORKER_LABELS", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
