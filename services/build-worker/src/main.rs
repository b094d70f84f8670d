//! boxyard-build-worker: plans Dockerfile builds and runs their steps.
//!
//! It asks the gateway for builds, runs each on this machine's snapshots with the shim and an OCI runtime, and stores
//! every layer before it reports success. It must not keep anything that only it has, and writes to the bus only what
//! carries the attempt of its lease.
//!
//! [`worker`] takes builds, [`session`] is one of them from lease to end, [`plan`] what it is to do, [`builder`] does it.

mod archive;
mod arguments;
mod artefacts;
mod builder;
mod caches;
mod claims;
mod client;
mod config;
mod container;
mod context;
mod copy;
mod ends;
mod failure;
mod flight;
mod garbage;
mod graph;
mod halt;
mod handover;
mod heredocs;
mod image;
mod layers;
mod lifeline;
mod limits;
mod log;
mod machine;
mod neighbours;
mod network;
mod output;
mod patience;
mod plan;
mod platforms;
mod ports;
mod recorder;
mod remote;
mod rooted;
mod session;
mod slots;
mod space;
mod squash;
mod storage;
mod tree;
mod wording;
mod worker;

use clap::Parser as _;
use tokio_util::sync::CancellationToken;

fn main() -> anyhow::Result<()> {
    let config = config::Config::parse();
    service::init("build-worker", &config.bus.log);
    config.bus.trust()?;
    service::runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            service::shutdown_signal().await;
            stopping.cancel();
        });
        worker::serve(config, stop).await
    })
}
