//! boxyard-layer-store: content-addressed blobs and manifests, served as an OCI Distribution registry to nodes,
//! workers and users alike. It knows blobs, manifests and leases; it must not know containers or images' records.
//!
//! - [`http`] speaks `/v2` and `/internal/blobs`;
//! - [`handlers`] answers the bus: leases, release of blobs, usage;
//! - [`repositories`] holds what a plain repository names; blobs themselves are in the library `blobs`.

mod collect;
mod handlers;
mod http;
mod manifest;
mod repositories;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio_util::sync::CancellationToken;

use crate::http::App;
use crate::repositories::Repositories;

/// How long running requests may go on after the signal to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Uploads that were left are looked for so often.
const SWEEP: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(name = "boxyard-layer-store", version, about = "Boxyard's store of blobs and manifests")]
struct Config {
    #[command(flatten)]
    bus: service::BusArgs,
    /// Name of this process among the living ones.
    #[arg(long, env = "BOXYARD_STORE_ID", default_value = "store")]
    id: String,
    /// Address for Boxyard's own processes, `ip:port`.
    #[arg(long, env = "BOXYARD_STORE_LISTEN")]
    listen: SocketAddr,
    /// Certificate (PEM) of `--listen`, which then speaks https.
    #[arg(long, env = "BOXYARD_LISTEN_CERT")]
    listen_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, env = "BOXYARD_LISTEN_KEY")]
    listen_key: Option<PathBuf>,
    /// Folder of blobs, leases and repositories; one process owns it.
    #[arg(long, env = "BOXYARD_STORE_DATA_DIR")]
    data_dir: PathBuf,
    /// File that holds the token for writes and for internal blobs.
    #[arg(long, env = "BOXYARD_TOKEN_FILE")]
    token_file: PathBuf,
    /// File of tokens that read and write internal blobs and nothing else: lines of the token's sha256 in hex and its
    /// user's name. A change of the file counts at once.
    #[arg(long, env = "BOXYARD_TOKENS_FILE")]
    tokens_file: Option<PathBuf>,
    #[command(flatten)]
    registry: serve::Registry,
    /// Seconds for which a repository shows a blob that none of its manifests names: a push must be done by then.
    #[arg(long, env = "BOXYARD_UNNAMED_BLOB_GRACE_SECONDS", default_value_t = 24 * 60 * 60)]
    unnamed_blob_grace_seconds: u64,
    /// Free bytes that the disk must keep; below that, nothing is stored. [default: 128 MiB]
    #[arg(long, env = "BOXYARD_FREE_SPACE_FLOOR_BYTES", default_value_t = 128 << 20, hide_default_value = true)]
    free_space_floor_bytes: u64,
}

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    service::init("layer-store", &config.bus.log);
    service::runtime().context("starting the runtime")?.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    config.bus.trust()?;
    let token = service::read_token(&config.token_file)?;
    let blobs = blobs::Blobs::open(&config.data_dir, config.free_space_floor_bytes)
        .with_context(|| format!("opening the store in {}", config.data_dir.display()))?;
    let repositories = Repositories::open(&config.data_dir).context("opening the repositories")?;
    let mut app = App::new(blobs.clone(), repositories.clone(), token.trim())?.with_tokens(config.tokens_file);
    let cancel = CancellationToken::new();
    let mut servers = Vec::new();
    if let Some(serve::Checked { address, identity, passwords }) = config.registry.checked()? {
        let public = http::public_router(Arc::new(app.public(passwords)));
        servers.push(serve::serve(address, identity, public, cancel.clone()).await?);
    }
    let identity =
        trust::Identity::from_flags(config.listen_cert, config.listen_key, ("--listen-cert", "--listen-key"));
    let identity = identity.map_err(anyhow::Error::msg)?;
    let app = Arc::new(app);
    servers.push(serve::serve(config.listen, identity, http::router(app.clone()), cancel.clone()).await?);

    let bus = bus::Bus::connect(&bus::Config {
        url: config.bus.nats_url,
        user: config.bus.nats_user,
        password_file: config.bus.nats_password_file,
        name: format!("layer-store {}", config.id),
    })
    .await
    .context("connecting to the bus")?;
    let ended = Arc::new(tokio::sync::Notify::new());
    let calls = handlers::router(&bus, blobs.clone(), repositories.clone(), ended.clone());
    let grace = Duration::from_secs(config.unnamed_blob_grace_seconds);
    let garbage = collect::Garbage { blobs, repositories, grace };
    tokio::spawn(collect::collect(bus.clone(), garbage, ended, cancel.clone()));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            app.sweep();
        }
    });
    let (serving, stop) = (bus.clone(), cancel.clone());
    let calls = tokio::spawn(async move { serving.serve(bus::Target::Store, calls, stop).await });
    let alive = tokio::spawn({
        let (bus, stop) = (bus.clone(), cancel.clone());
        let alive = bus::sign_of_life("layer-store", &config.id, Vec::new());
        async move { bus.keep_alive(alive, stop).await }
    });

    service::announce_ready();
    service::shutdown_signal().await;
    cancel.cancel();
    match tokio::time::timeout(DRAIN, futures::future::join_all(servers)).await {
        Ok(ended) => ended.into_iter().try_for_each(|ended| ended.context("a server's task")?.context("serving"))?,
        Err(_) => tracing::warn!("requests still ran at the end and were cut off"),
    }
    calls.await.context("the task that answers the bus")??;
    alive.await.context("the task of the sign of life")
}
