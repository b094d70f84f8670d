//! The gateway: HTTP with the Docker Engine API in front, the bus behind. The only process that opens the database.
//! It never touches layers and never runs containers.
//!
//! `http` parses a request and calls `app`, which decides and asks the other services; `calls` answers the bus.

mod app;
mod calls;
mod http;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use tokio_util::sync::CancellationToken;
use trust::Identity;

#[derive(Parser)]
#[command(name = "boxyard-gateway", version, about = "Boxyard's Docker Engine API, and its only door to the database")]
struct Config {
    #[command(flatten)]
    bus: service::BusArgs,
    /// Name of this gateway among those of one database: each needs its own.
    #[arg(long, env = "BOXYARD_GATEWAY_ID", default_value = "gateway")]
    id: String,
    /// Folder of this gateway's own files.
    #[arg(long, env = "BOXYARD_GATEWAY_DATA_DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Where the API is served: `unix:///path` or `tcp://ip:port`; repeated for several.
    #[arg(long, env = "BOXYARD_GATEWAY_HOSTS", value_delimiter = ',', required = true)]
    host: Vec<String>,
    /// Where byte streams are dialled back to: `unix:/path` or `tcp:ip:port` on one machine, `tls:ip:port` between
    /// machines.
    #[arg(long, env = "BOXYARD_STREAMS")]
    streams: String,
    /// How nodes and workers reach `--streams`, `tls:host:port`, where that is another address.
    #[arg(long, env = "BOXYARD_ADVERTISE")]
    advertise: Option<String>,
    /// Certificate (PEM) of `--streams tls:...`; it names the advertised host.
    #[arg(long, env = "BOXYARD_STREAMS_CERT")]
    streams_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, env = "BOXYARD_STREAMS_KEY")]
    streams_key: Option<PathBuf>,
    /// The authority (PEM) whose certificates clients of `--host tcp://...` must show.
    #[arg(long, env = "BOXYARD_TLSCACERT", requires_all = ["tlscert", "tlskey"])]
    tlscacert: Option<PathBuf>,
    /// Certificate (PEM) of `--host tcp://...`.
    #[arg(long, env = "BOXYARD_TLSCERT", requires_all = ["tlscacert", "tlskey"])]
    tlscert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, env = "BOXYARD_TLSKEY", requires_all = ["tlscacert", "tlscert"])]
    tlskey: Option<PathBuf>,
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    store: service::StoreArgs,
    #[command(flatten)]
    registries: service::RegistryArgs,
}

/// Where images, containers and builds are recorded.
#[derive(clap::Args)]
struct DatabaseArgs {
    /// The database: `sqlite:` is a file in `--data-dir`, which only one gateway can open;
    /// `postgres://USER:PASSWORD@HOST:PORT/NAME` is shared by all gateways that name it. Everybody on the machine sees a
    /// command line: a password belongs into the environment or `--database-file`.
    #[arg(long, env = "BOXYARD_DATABASE", hide_env_values = true, default_value = "sqlite:")]
    database: String,
    /// File that holds the database's URL.
    #[arg(long, env = "BOXYARD_DATABASE_FILE")]
    database_file: Option<PathBuf>,
}

impl DatabaseArgs {
    fn url(&self) -> std::io::Result<String> {
        match &self.database_file {
            Some(file) => service::read_token(file),
            None => Ok(self.database.clone()),
        }
    }
}

/// How much is remembered of builds.
#[derive(clap::Args)]
struct HistoryArgs {
    /// Builds that are remembered at most, with their logs.
    #[arg(long, env = "BOXYARD_BUILD_HISTORY", default_value_t = 1000)]
    build_history: u32,
    /// Days for which a build is remembered.
    #[arg(long, env = "BOXYARD_BUILD_HISTORY_DAYS", default_value_t = 7)]
    build_history_days: u32,
    /// Bytes that the logs of builds may take in the layer store, compressed; the oldest builds go first.
    #[arg(long, env = "BOXYARD_BUILD_HISTORY_BYTES", default_value_t = 1 << 30)]
    build_history_bytes: u64,
    /// Bytes that results of build steps and cache mounts may take in the layer store together, besides what images share;
    /// those used longest ago go first. 0: a fifth of the store's disk.
    #[arg(long, env = "BOXYARD_BUILD_CACHE_BYTES", default_value_t = 0)]
    build_cache_bytes: u64,
}

impl HistoryArgs {
    fn caps(&self) -> metadata::HistoryCaps {
        metadata::HistoryCaps {
            builds: i64::from(self.build_history),
            age_ms: i64::from(self.build_history_days) * 24 * 3600 * 1000,
            log_bytes: i64::try_from(self.build_history_bytes).unwrap_or(i64::MAX),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    service::init("gateway", &config.bus.log);
    service::runtime()?.block_on(run(config))
}

async fn run(config: Config) -> anyhow::Result<()> {
    config.bus.trust()?;
    let token = config.store.token()?;
    let waiting = |error: &metadata::Error| tracing::warn!(%error, "waiting for the database");
    let db = metadata::Database::open(&config.database.url()?, &config.data_dir, waiting).await?;
    let bus = bus::Bus::connect(&bus::Config {
        url: config.bus.nats_url.clone(),
        user: config.bus.nats_user.clone(),
        password_file: config.bus.nats_password_file.clone(),
        name: "gateway".to_owned(),
    })
    .await?;
    while let Err(error) = bus.ensure_streams().await {
        tracing::warn!(%error, "waiting for the bus");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let identity = Identity::from_flags(config.streams_cert, config.streams_key, ("--streams-cert", "--streams-key"));
    let options = streams::Options { advertise: config.advertise, identity: identity.map_err(anyhow::Error::msg)? };
    let tickets = streams::Tickets::listen_as(&config.streams, options).await.context("listening for byte streams")?;
    let store = distribution::Store::new(config.store.store_url.clone(), token);
    let caps = (config.history.caps(), config.history.build_cache_bytes);
    let app = app::App::new(db, bus.clone(), tickets, store, config.registries, caps);
    app.begin_session(&config.id).await?;
    let cancel = CancellationToken::new();
    let serving = tokio::spawn({
        let (bus, cancel, router) = (bus.clone(), cancel.clone(), calls::router(app.clone()));
        async move { bus.serve(bus::Target::Gateway, router, cancel).await }
    });
    tokio::spawn({
        let (bus, cancel, router) = (bus.clone(), cancel.clone(), calls::of_this_gateway(app.clone()));
        let me = bus::Target::GatewayAt(app.db.session().to_owned());
        async move { bus.serve(me, router, cancel).await }
    });
    let sharing = tokio::spawn(app::share_events(app.clone(), cancel.clone()));
    tokio::spawn(app::follow_events(app.clone(), cancel.clone()));
    tokio::spawn({
        let app = app.clone();
        async move { app.finish_what_was_left().await }
    });
    let session = tokio::spawn(app::keep_session(app.clone(), config.id.clone(), cancel.clone()));
    tokio::spawn(app::keep_cache_cap(app.clone(), cancel.clone()));
    let alive = bus::sign_of_life("gateway", &config.id, Vec::new());
    tokio::spawn({
        let cancel = cancel.clone();
        async move { bus.keep_alive(alive, cancel).await }
    });
    let tls = Identity::from_flags(config.tlscert, config.tlskey, ("--tlscert", "--tlskey"));
    let tls = tls.map_err(anyhow::Error::msg)?.map(|identity| trust::server(&identity, config.tlscacert.as_deref()));
    let tls = tls.transpose()?;
    let mut listeners = Vec::new();
    for host in &config.host {
        listeners
            .push(http::listen(host, tls.clone(), app.clone()).await.with_context(|| format!("listening on {host}"))?);
    }
    service::announce_ready();
    let mut session = session;
    let taken = tokio::select! {
        () = service::shutdown_signal() => false,
        _ = &mut session => true,
    };
    cancel.cancel();
    for listener in listeners {
        listener.abort();
    }
    for path in config.host.iter().filter_map(|host| host.strip_prefix("unix://")) {
        // The next start replaces a socket that stays.
        let _ = std::fs::remove_file(path);
    }
    let _ = serving.await;
    let _ = sharing.await;
    if taken {
        anyhow::bail!("another process runs as gateway {}", config.id);
    }
    let _ = session.await;
    Ok(())
}
