//! boxyard-registry-sync: moves images between other registries, archives and the layer store. It must not unpack layers
//! onto disks or keep state.
//!
//! - [`handlers`] answers the bus;
//! - [`load`] reads an archive, [`save`] writes one ([`layout`]), [`import`] takes a root file system;
//! - [`registry`] pulls and pushes images, and asks registries what else there is to ask;
//! - [`progress`] tells how far a load is;
//! - [`spool`] holds an archive's entries until it is known what they are.

mod compression;
mod error;
mod handlers;
mod import;
mod layer;
mod layout;
mod lines;
mod load;
mod progress;
mod registry;
mod save;
mod spool;

use anyhow::Context as _;
use clap::Parser;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(
    name = "boxyard-registry-sync",
    version,
    about = "Boxyard's mover of images: registries, archives, layer store"
)]
struct Config {
    #[command(flatten)]
    bus: service::BusArgs,
    /// Name of this process among the living ones.
    #[arg(long, env = "BOXYARD_SYNC_ID", default_value = "sync")]
    id: String,
    #[command(flatten)]
    store: service::StoreArgs,
    #[command(flatten)]
    registries: service::RegistryArgs,
    /// Folder of registries' CAs and client certificates, `host:port/*.crt`, `*.cert` and `*.key`.
    #[arg(long, env = "BOXYARD_CERTS_DIR", default_value = "/etc/docker/certs.d")]
    certs_dir: std::path::PathBuf,
}

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    service::init("registry-sync", &config.bus.log);
    service::runtime().context("starting the runtime")?.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    config.bus.trust()?;
    let token = config.store.token()?;
    let store = distribution::Store::new(config.store.store_url, token);
    let bus = bus::Bus::connect(&bus::Config {
        url: config.bus.nats_url,
        user: config.bus.nats_user,
        password_file: config.bus.nats_password_file,
        name: format!("registry-sync {}", config.id),
    })
    .await
    .context("connecting to the bus")?;
    let service::RegistryArgs { mirrors, insecure } = config.registries;
    let settings = distribution::registry::Settings { mirrors, insecure, certs_dir: config.certs_dir };
    let registries = distribution::registry::Registries::new(settings);
    let remote = registry::Remote::new(registries, store, bus.clone());
    let cancel = CancellationToken::new();
    let calls = tokio::spawn({
        let (bus, stop, router) = (bus.clone(), cancel.clone(), handlers::router(remote));
        async move { bus.serve(bus::Target::Sync, router, stop).await }
    });
    let alive = tokio::spawn({
        let (bus, stop, alive) =
            (bus.clone(), cancel.clone(), bus::sign_of_life("registry-sync", &config.id, Vec::new()));
        async move { bus.keep_alive(alive, stop).await }
    });

    service::announce_ready();
    service::shutdown_signal().await;
    cancel.cancel();
    calls.await.context("the task that answers the bus")??;
    alive.await.context("the task of the sign of life")
}
