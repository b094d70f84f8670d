use std::path::PathBuf;

use service::BusArgs;

/// Settings of a build worker.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "boxyard-build-worker", version, about = "Plans Dockerfile builds and runs their steps")]
pub struct Config {
    #[command(flatten)]
    pub bus: BusArgs,
    /// Id of this worker, unique in the cluster.
    #[arg(long, env = "BOXYARD_WORKER_ID")]
    pub id: String,
    /// Folder of builds in progress; what a killed worker left in it is removed at the next start.
    #[arg(long, env = "BOXYARD_WORKER_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Folder that all processes of this machine share: unpacked layers, networks. On the file system of `data-dir`.
    #[arg(long, env = "BOXYARD_MACHINE_DIR")]
    pub machine_dir: PathBuf,
    /// Name of this Boxyard in what is global on a machine (control groups, interfaces): six hex digits.
    #[arg(long, env = "BOXYARD_INSTANCE")]
    pub instance: String,
    /// Address of the layer store, `http://host:port`.
    #[arg(long, env = "BOXYARD_STORE_URL")]
    pub store_url: String,
    /// File that holds the layer store's token.
    #[arg(long, env = "BOXYARD_TOKEN_FILE")]
    pub token_file: PathBuf,
    /// Builds at once.
    #[arg(long, env = "BOXYARD_WORKER_SLOTS", default_value_t = 2)]
    pub slots: u32,
    /// The OCI runtime; by default crun, else runc, from PATH.
    #[arg(long, env = "BOXYARD_RUNTIME")]
    pub runtime: Option<PathBuf>,
    /// The shim; by default the one beside this program.
    #[arg(long, env = "BOXYARD_SHIM")]
    pub shim: Option<PathBuf>,
}

impl Config {
    /// The OCI runtime to use, if there is one.
    pub fn runtime_binary(&self) -> Option<PathBuf> {
        self.runtime.clone().or_else(|| ["crun", "runc"].iter().find_map(|name| on_path(name)))
    }

    pub fn shim_binary(&self) -> PathBuf {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("boxyard-shim"));
        self.shim.clone().or_else(beside).unwrap_or_else(|| PathBuf::from("boxyard-shim"))
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
