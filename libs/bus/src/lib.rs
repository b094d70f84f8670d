//! The bus: typed calls, events and build logs over NATS. The only room that names async-nats.
//!
//! - A call is a core NATS request on `rpc.<service>[.<id>].<call>.<user of the caller>`, so that the server's permissions
//!   say which calls a user may make, and who is served knows who asks ([`Caller`]); [`calls`] ties each name to its request, reply and
//!   owner. Every call is answered, error or not. While a handler runs its caller hears a heartbeat every two seconds,
//!   so a call needs no fixed time limit: six seconds of silence mean that the server is gone.
//!   A call that only one caller wants (`call_while_wanted`) ends when that caller goes: it is told on
//!   `gone.<service>`, which every process of the service hears.
//! - Events of nodes and gateways go through the JetStream stream EVENTS, logs of builds through BUILDLOG: numbered and replayable.
//! - Who runs a step stands in the KV bucket `claims`; every write is a swap on the revision that was read.
//! - Who is alive stands in the KV bucket `alive`, each key with a time to live.
//!
//! Messages are small; bytes never ride here (see `streams`).

mod alive;
mod call;
pub mod calls;
mod claims;
mod counts;
mod error;
mod jetstream;
mod router;
mod unbroken;

use std::path::PathBuf;
use std::time::Duration;

pub use alive::{figures, process, sign_of_life};
pub use calls::{Call, Target};
pub use claims::{CLAIM_TTL, Claimed};
pub use error::Error;
pub use jetstream::{Happened, Written};
pub use router::{Caller, ProgressSender, Router};

/// How long a caller waits for the next sign of a server: three missed heartbeats.
pub const SILENCE: Duration = Duration::from_secs(6);
/// How often a server tells its caller that a handler still runs.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// Who connects, and where to.
#[derive(Clone, Debug)]
pub struct Config {
    pub url: String,
    pub user: String,
    /// File with the user's password; none for a server without users.
    pub password_file: Option<PathBuf>,
    /// Shown in the server's connection list.
    pub name: String,
}

/// A connection to the bus; clones share it. It reconnects by itself.
#[derive(Clone)]
pub struct Bus {
    client: async_nats::Client,
    jetstream: async_nats::jetstream::Context,
    /// Last word of the subjects of this process' calls.
    user: std::sync::Arc<str>,
}

impl Bus {
    /// Connects; while the server is not there yet, it is tried again in the background.
    ///
    /// # Errors
    /// `InvalidArgument` when the password file cannot be read or the URL is wrong.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let mut options = async_nats::ConnectOptions::new()
            .name(&config.name)
            .custom_inbox_prefix(format!("_INBOX.{}", config.user))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempts| Duration::from_millis((50 * attempts.min(20)) as u64));
        if let Some(path) = &config.password_file {
            let password = std::fs::read_to_string(path)
                .map_err(|e| Error::invalid(format!("reading the bus password {}: {e}", path.display())))?;
            options = options.user_and_password(config.user.clone(), password.trim().to_owned());
        }
        if let Some(trusted) = trust::client() {
            // Only a `tls://` address makes use of it; that one takes no other authority.
            options = options.tls_client_config(trusted.as_ref().clone());
        }
        let client = options
            .connect(&config.url)
            .await
            .map_err(|e| Error::invalid(format!("connecting to the bus at {}: {e}", config.url)))?;
        let jetstream = async_nats::jetstream::new(client.clone());
        Ok(Self { client, jetstream, user: config.user.as_str().into() })
    }
}
