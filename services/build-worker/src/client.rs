//! The client of a build, asked through the gateway that has its session. Where that one ends, the client comes back through
//! another one, or through the same one started again.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use bus::{Bus, Call, Target, calls};
use model::ErrorKind;
use tokio_util::sync::CancellationToken;

use crate::patience::{PATIENCE, PAUSE};

/// Clones are the same client.
#[derive(Clone)]
pub struct BuildClient {
    bus: Bus,
    build: proto::SessionLookup,
    /// Empty: the client has no session.
    gateway: Arc<Mutex<String>>,
    cancel: CancellationToken,
}

impl BuildClient {
    /// `gateway` has the session, as far as it is known; `cancel`: the build is to end.
    pub fn new(bus: Bus, (build_id, attempt): (&str, u32), gateway: String, cancel: CancellationToken) -> Self {
        let build = proto::SessionLookup { build_id: build_id.to_owned(), attempt };
        Self { bus, build, gateway: Arc::new(Mutex::new(gateway)), cancel }
    }

    /// The gateway that had the session last; empty: there is none.
    pub fn gateway(&self) -> String {
        self.gateway.lock().expect("no holder panics").clone()
    }

    pub fn has_session(&self) -> bool {
        !self.gateway().is_empty()
    }

    /// Asks; while the session is at no gateway, for up to a minute again. Only for what may be asked twice.
    ///
    /// # Errors
    /// The client's or the gateway's own; `Conflict` when the build is another worker's.
    pub async fn ask<C: Call>(&self, request: &C::Request) -> Result<C::Reply, bus::Error> {
        self.asking::<C>(|| Target::GatewayAt(self.gateway()), request).await
    }

    /// Asks any gateway for what it has others do with the client; as [`Self::ask`].
    pub async fn ask_through<C: Call>(&self, request: &C::Request) -> Result<C::Reply, bus::Error> {
        self.asking::<C>(|| Target::Gateway, request).await
    }

    async fn asking<C: Call>(&self, whom: impl Fn() -> Target, request: &C::Request) -> Result<C::Reply, bus::Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            let error = match self.bus.call_while_wanted::<C>(&whom(), request, None).await {
                Err(error) if is_away(&error) && Instant::now() < until => error,
                done => return done,
            };
            tracing::info!(%error, build_id = self.build.build_id, "the build's client is away");
            tokio::select! {
                () = self.cancel.cancelled() => return Err(error),
                () = tokio::time::sleep(PAUSE) => {}
            }
            match self.bus.call::<calls::SessionLookup>(&Target::Gateway, &self.build).await {
                Ok(found) => *self.gateway.lock().expect("no holder panics") = found.gateway,
                Err(error) if error.kind() == ErrorKind::Conflict => return Err(error),
                Err(error) => tracing::debug!(%error, "nobody knows where the build's client is"),
            }
        }
    }
}

/// Its gateway, or it itself, may come back. What the client says itself is never `Unavailable`.
fn is_away(error: &bus::Error) -> bool {
    error.is_lost() || error.kind() == ErrorKind::Unavailable
}
