//! What the gateway decides: which node, which image, in which order. Knows no HTTP.

pub mod builds;
pub mod containers;
pub mod events;
pub mod exec;
pub mod failure;
pub mod images;
pub mod names;
pub mod nodes;
pub mod prune;
pub mod remove_image;
pub mod spec;
pub mod system;
pub mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, broadcast};

pub use events::follow_events;
pub use failure::{Failure, Outcome};

pub struct App {
    /// For work that goes on after a request was answered.
    me: Weak<Self>,
    pub db: metadata::Database,
    pub bus: bus::Bus,
    pub tickets: Arc<streams::Tickets>,
    pub store: distribution::Store,
    pub events: events::Hub,
    /// Ids of containers whose record changed.
    pub changed: broadcast::Sender<String>,
    /// A build was queued.
    pub queued: Notify,
    nodes: Mutex<BTreeMap<String, proto::NodeInfo>>,
    pub execs: Mutex<HashMap<String, exec::Exec>>,
}

impl App {
    pub fn new(
        db: metadata::Database,
        bus: bus::Bus,
        tickets: Arc<streams::Tickets>,
        store: distribution::Store,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            db,
            bus,
            tickets,
            store,
            events: events::Hub::new(),
            changed: broadcast::channel(1024).0,
            queued: Notify::new(),
            nodes: Mutex::default(),
            execs: Mutex::default(),
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
