use std::path::PathBuf;

use service::BusArgs;

/// Settings of a node.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "boxyard-node", version, about = "Keeps the containers of one machine")]
pub struct Config {
    #[command(flatten)]
    pub bus: BusArgs,
    /// Id of this node, unique in the cluster.
    #[arg(long, env = "BOXYARD_NODE_ID")]
    pub id: String,
    /// Folder that all processes of this machine share: containers, unpacked layers, networks.
    #[arg(long, env = "BOXYARD_MACHINE_DIR")]
    pub machine_dir: PathBuf,
    /// Address of the layer store, `http://host:port`.
    #[arg(long, env = "BOXYARD_STORE_URL")]
    pub store_url: String,
    /// File that holds the layer store's token.
    #[arg(long, env = "BOXYARD_TOKEN_FILE")]
    pub token_file: PathBuf,
    /// Name of this Boxyard in what is global on a machine: six hex digits.
    #[arg(long, env = "BOXYARD_INSTANCE")]
    pub instance: String,
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
