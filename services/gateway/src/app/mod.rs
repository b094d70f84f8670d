//! What the gateway decides: which node, which image, in which order. Knows no HTTP.

pub mod build_cache;
pub mod build_history;
pub mod build_log;
pub mod builds;
mod cache_content;
pub mod cache_mounts;
pub mod caches;
mod capabilities;
pub mod checks;
pub mod commit;
pub mod containers;
pub mod events;
pub mod exec;
pub mod explain;
mod exports;
pub mod failure;
pub mod filters;
pub mod gateways;
pub mod holders;
pub mod images;
pub mod jobs;
pub mod known;
pub mod layouts;
pub mod lease;
mod likely;
pub mod lines;
pub mod list;
mod mounts;
pub mod names;
pub mod networks;
pub mod nodes;
pub mod orphans;
pub mod overview;
pub mod packed;
pub mod placement;
pub mod platform;
pub mod presence;
pub mod project;
pub mod prune;
pub mod pull;
pub mod push;
pub mod registries;
pub mod registry;
pub mod remove_image;
pub mod sessions;
pub mod signals;
pub mod spec;
pub mod stats;
pub mod step_container;
pub mod step_results;
pub mod step_shell;
pub mod storage;
pub mod system;
pub mod transfers;
pub mod update;
pub mod view;
pub mod volumes;
pub mod wait;
pub mod workers;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, broadcast};

pub use build_cache::keep_cache_cap;
pub use failure::{Failure, Outcome};
pub use gateways::share_events;
pub use presence::keep_session;
pub use project::follow_events;

pub struct App {
    /// For work that goes on after a request was answered.
    me: Weak<Self>,
    pub db: metadata::Database,
    pub bus: bus::Bus,
    pub tickets: Arc<streams::Tickets>,
    pub store: distribution::Store,
    /// How registries are reached; registry-sync has the same flags and does the reaching.
    pub registries: service::RegistryArgs,
    /// How much is remembered of builds.
    pub history: metadata::HistoryCaps,
    /// What results of steps and cache mounts may take in the layer store; 0: a part of its disk.
    cache_bytes: u64,
    /// A result of a step was recorded, or a cache mount stored.
    cache_grew: Notify,
    pub events: events::Hub,
    outbox: gateways::Outbox,
    containers: known::Containers,
    /// Pulls and pushes that go on.
    transfers: transfers::Transfers,
    /// Who is alive, and who was.
    seen: tokio::sync::Mutex<overview::services::Seen>,
    /// Containers whose record changed.
    pub changed: broadcast::Sender<Arc<wait::Changed>>,
    /// A build was queued.
    pub queued: Notify,
    nodes: Mutex<nodes::Nodes>,
    /// The last step that a running build has said to begin, by build.
    steps: Mutex<HashMap<String, String>>,
    /// What the clients of running builds may show registries, by build. Kept nowhere else.
    build_credentials: Mutex<HashMap<String, Arc<registry::Credentials>>>,
    /// Pulls that go on.
    flights: pull::Flights,
    /// Connections of clients that builds ask for files, secrets and agents.
    sessions: sessions::Sessions,
    /// Files of clients that were sent lately.
    known_trees: sessions::KnownTrees,
    /// Steps that the next build of the same kind may have.
    likely: likely::Likely,
    /// Builds by the names that their clients gave them.
    jobs: jobs::Jobs,
}

impl App {
    pub fn new(
        db: metadata::Database,
        bus: bus::Bus,
        tickets: Arc<streams::Tickets>,
        store: distribution::Store,
        registries: service::RegistryArgs,
        (history, cache_bytes): (metadata::HistoryCaps, u64),
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            db,
            bus,
            tickets,
            store,
            registries,
            history,
            cache_bytes,
            cache_grew: Notify::new(),
            events: events::Hub::new(),
            outbox: gateways::Outbox::new(),
            containers: Default::default(),
            transfers: Default::default(),
            seen: Default::default(),
            changed: broadcast::channel(1024).0,
            queued: Notify::new(),
            nodes: Mutex::default(),
            steps: Mutex::default(),
            build_credentials: Mutex::default(),
            flights: Mutex::default(),
            sessions: Default::default(),
            known_trees: Default::default(),
            likely: Default::default(),
            jobs: Default::default(),
        })
    }
}

/// Maps here are whole after every statement, so a panic elsewhere does not spoil them.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn now_ns() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i64)
}

pub fn random_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}
