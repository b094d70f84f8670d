//! boxyard-node: keeps the containers of one machine. It must not know images' names, users or the Engine API.
//!
//! - [`node`] holds what is shared; [`containers`] is a container and its folder, the only truth about it;
//! - [`start`] brings one up and takes it down again, [`policy`] when its end is not to be the last; [`attach`], [`logs`], [`exec`] connect clients;
//! - [`handlers`] ties calls to these; [`rescan`] finds containers again after a restart.
//!
//! Invariants: a change is on disk before it is told, and told ([`outbox`]) until the stream has it.

mod adopt;
mod archive;
mod attach;
mod commit;
mod compression;
mod config;
mod containers;
mod etc;
mod exec;
mod from_store;
mod handlers;
mod health;
mod init_layer;
mod logs;
mod node;
mod outbox;
mod policy;
mod remove;
mod rescan;
mod spec;
mod start;
mod stats;
mod stop;
mod top;
mod volumes;

use anyhow::Context as _;
use clap::Parser as _;
use prost_info::encoded;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::node::Node;

/// How long the end waits for what removed containers leave.
const CLEARING: std::time::Duration = std::time::Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    service::init("node", &config.bus.log);
    service::runtime().context("starting the runtime")?.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    config.bus.trust()?;
    if let Some(host) = &config.streams_host {
        streams::dial_at(host);
    }
    let bus = bus::Bus::connect(&bus::Config {
        url: config.bus.nats_url.clone(),
        user: config.bus.nats_user.clone(),
        password_file: config.bus.nats_password_file.clone(),
        name: format!("node {}", config.id),
    })
    .await
    .context("connecting to the bus")?;
    let node = Node::open(&config, bus.clone()).await?;
    rescan::rescan(&node).await;
    let cancel = CancellationToken::new();
    let (serving, stop, id) = (bus.clone(), cancel.clone(), config.id.clone());
    let router = handlers::router(&node);
    let calls = tokio::spawn(async move { serving.serve(bus::Target::Node(id), router, stop).await });
    let alive = bus::sign_of_life("node", &config.id, encoded(&node.info()));
    let stop = cancel.clone();
    let beating = tokio::spawn(async move { bus.keep_alive(alive, stop).await });
    tokio::spawn(rescan::greet(node.clone()));
    service::announce_ready();
    service::shutdown_signal().await;
    if config.machine.stops_for_good() {
        stop::stop_all(&node).await;
        if let Err(error) = node.network.cleanup().await {
            tracing::warn!(%error, "the network could not be taken down");
        }
    }
    // Clean-ups that are under way; others go on at the next start.
    node.tasks.close();
    let _ = tokio::time::timeout(CLEARING, node.tasks.wait()).await;
    cancel.cancel();
    calls.await.context("the task that answers the bus")??;
    beating.await.context("the task of the sign of life")
}

mod prost_info {
    pub fn encoded(info: &proto::NodeInfo) -> Vec<u8> {
        use prost::Message as _;
        info.encode_to_vec()
    }
}
