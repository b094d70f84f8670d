//! What the gateways of one database tell each other: what they did (the stream of events), and what only one of them holds
//! (a call to that one).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bus::{Target, calls};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::events::Event;
use super::known::Known;
use super::{App, Outcome, lock, orphans, view, wait::Changed};

/// The bus does not answer: so long until it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Kinds whose objects one gateway alone knows.
const OF_ONE: &[&str] = &["transfer"];

/// What is to be told to the other gateways, in order.
pub struct Outbox {
    last: AtomicU64,
    /// Unbounded, since what has happened cannot be taken back: the bus takes thousands a second, and while it is away
    /// little happens.
    sender: mpsc::UnboundedSender<proto::GatewayEvent>,
    waiting: Mutex<mpsc::UnboundedReceiver<proto::GatewayEvent>>,
}

impl Outbox {
    pub fn new() -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        Self { last: AtomicU64::new(0), sender, waiting: Mutex::new(waiting) }
    }
}

impl App {
    /// Tells the other gateways, where there may be any. `known` says more of a container.
    pub fn share(&self, event: &Event, known: Option<Known>) {
        if !self.db.is_shared() || OF_ONE.contains(&event.kind.as_str()) {
            return;
        }
        // The receiver lives as long as this.
        let _ = self.outbox.sender.send(proto::GatewayEvent {
            gateway: self.events.boot.clone(),
            number: self.outbox.last.fetch_add(1, Ordering::Relaxed) + 1,
            time_ns: event.time_ns,
            kind: event.kind.clone(),
            action: event.action.clone(),
            id: event.id.clone(),
            attributes_json: Value::Object(event.attributes.clone()).to_string(),
            container: known.map(|known| known.0),
        });
    }

    /// A container's record has changed, and no event tells of it.
    pub fn share_change(&self, id: &str) {
        let (kind, action, id) = ("container".to_owned(), String::new(), id.to_owned());
        self.share(&Event { time_ns: 0, kind, action, id, attributes: Default::default() }, None);
    }

    /// What a gateway has told; this one's own is known here.
    pub async fn hear(&self, event: proto::GatewayEvent) -> Outcome<()> {
        if event.gateway == self.events.boot || !self.events.first_time(0, event.number, &event.gateway) {
            return Ok(());
        }
        let attributes: Map<String, Value> = serde_json::from_str(&event.attributes_json).unwrap_or_default();
        let attribute = |name: &str| attributes.get(name).and_then(Value::as_str).unwrap_or_default();
        match (event.kind.as_str(), event.action.as_str()) {
            // A worker that was drained or labelled may take another build now.
            ("build", "queued") | ("worker", _) => self.queued.notify_waiters(),
            ("container", action) => {
                if let Some(told) = event.container.filter(|_| action == "create") {
                    self.containers.remember(Known(told));
                }
                match action {
                    "rename" => self.containers.rename(&event.id, attribute("name")),
                    "destroy" => self.containers.let_go(&event.id),
                    _ => {}
                }
                if matches!(action, "" | "destroy") {
                    let status = self.db.container(&event.id).await?.as_ref().map(view::status_of);
                    // Nobody waits.
                    let _ = self.changed.send(Arc::new(Changed { id: event.id.clone(), status }));
                }
            }
            _ => {}
        }
        if !event.action.is_empty() {
            let proto::GatewayEvent { time_ns, kind, action, id, .. } = event;
            self.events.publish(Event { time_ns, kind, action, id, attributes });
        }
        Ok(())
    }

    /// What the client of a build shows the registry of `domain`, by the gateway that queued the build: that one has it in
    /// its memory, or the client's session.
    pub async fn credentials_of(&self, build_id: &str, domain: &str) -> Outcome<Option<proto::RegistryAuth>> {
        let request = proto::BuildCredentials { build_id: build_id.to_owned(), domain: domain.to_owned() };
        let until = Instant::now() + orphans::PATIENCE;
        loop {
            let session = self.db.session_of_build(build_id).await?.unwrap_or_default();
            if session.is_empty() || session == self.db.session() {
                return Ok(self.build_credentials(request).await?.auth);
            }
            match self.bus.call::<calls::BuildCredentials>(&Target::GatewayAt(session), &request).await {
                // That gateway has gone, and the client may come back through another one.
                Err(error) if error.is_lost() && Instant::now() < until => tokio::time::sleep(PAUSE).await,
                reply => return Ok(reply?.auth),
            }
        }
    }

    /// The same for another gateway that asks. A build that has ended has nothing to show.
    pub async fn build_credentials(&self, request: proto::BuildCredentials) -> Outcome<proto::BuildCredentialsReply> {
        let Some(found) = lock(&self.build_credentials).get(&request.build_id).cloned() else {
            return Ok(proto::BuildCredentialsReply::default());
        };
        let auth = match (found.of(&request.domain), &found.session) {
            (None, Some(session)) => self.session_credentials(session, &request.domain).await?,
            (auth, _) => auth,
        };
        Ok(proto::BuildCredentialsReply { auth })
    }
}

/// Publishes what is to be told until `cancel`, and what was to be told then. One event after the other is acknowledged, so
/// that none is lost and their order stays.
pub async fn share_events(app: Arc<App>, cancel: CancellationToken) {
    let mut waiting = app.outbox.waiting.lock().await;
    loop {
        let event = tokio::select! {
            Some(event) = waiting.recv() => event,
            () = cancel.cancelled() => match waiting.try_recv() {
                Ok(event) => event,
                Err(_) => return,
            },
        };
        while let Err(error) = app.bus.publish_gateway_event(&event).await {
            if cancel.is_cancelled() {
                tracing::warn!(%error, "the other gateways do not hear the last events");
                return;
            }
            tracing::warn!(%error, "the other gateways hear of events late");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
