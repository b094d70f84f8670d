use service::{BusArgs, MachineArgs, StoreArgs};

/// Settings of a node.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "boxyard-node", version, about = "Keeps the containers of one machine")]
pub struct Config {
    #[command(flatten)]
    pub bus: BusArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Id of this node, unique in the cluster.
    #[arg(long, env = "BOXYARD_NODE_ID")]
    pub id: String,
}
