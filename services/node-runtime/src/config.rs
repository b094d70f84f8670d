use service::{BusArgs, MachineArgs, StoreArgs};

const HELP: &str = "\
It runs as root, with crun (or runc) and nft on PATH and boxyard-shim beside it, and dials out only. `boxyard cluster \
join` gives it all of this; by hand:

  boxyard-node --id b --instance 0a1b2c --machine-dir /var/lib/boxyard/machine \\
    --nats-url tls://10.0.0.1:7420 --nats-user node-b --nats-password-file password --ca ca.pem \\
    --store-url https://10.0.0.1:7421 --token-file token

The bus user is node-ID. It prints the line `ready` when it serves, and ends at SIGTERM; its containers live on, unless \
the file MACHINE_DIR/stop-containers is there.";

/// Settings of a node.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "boxyard-node",
    version,
    about = "Keeps the containers of one machine",
    after_help = HELP
)]
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
    /// Host under which this machine reaches the gateway's byte streams, where it is not the one that others use.
    #[arg(long, env = "BOXYARD_STREAMS_HOST")]
    pub streams_host: Option<String>,
}
