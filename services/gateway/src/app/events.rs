use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use engine_api::event;
use futures::StreamExt as _;
use prost::Message as _;
use proto::ContainerState;
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::filters::Filters;
use super::wait::Changed;
use super::{App, Outcome, lock, now_ns};

/// How many past events GET /events?since= can show.
const RING: usize = 256;
/// Numbers of node events that were seen already: a reply and the stream bring the same ones.
const SEEN: usize = 4096;
/// Events of the stream that are applied in one transaction at most.
const BATCH: usize = 128;
pub const STREAM: &str = "EVENTS";

/// Docker's events: live ones, and the last few.
pub struct Hub {
    live: broadcast::Sender<Arc<Event>>,
    past: Mutex<VecDeque<Arc<Event>>>,
    seen: Mutex<VecDeque<(u64, u64, String)>>,
}

pub struct Event {
    pub time_ns: i64,
    pub kind: String,
    pub action: String,
    pub id: String,
    pub attributes: Map<String, Value>,
}

impl Event {
    pub fn json(&self) -> Value {
        event(&self.kind, &self.action, &self.id, &self.attributes, self.time_ns)
    }

    /// Docker's filters: several values of a key are alternatives, labels must all be there.
    pub fn passes(&self, filters: &Filters) -> bool {
        let attribute = |name: &str| self.attributes.get(name).and_then(Value::as_str).unwrap_or_default();
        let is = |kind: &str, wanted: &str| {
            self.kind == kind && (self.id.starts_with(wanted) || attribute("name") == wanted)
        };
        let image = |wanted: &str| {
            let names = [self.id.as_str(), attribute("image"), attribute("name")];
            let plain = |name: &str| name.rsplit_once(':').map_or(name, |(repository, _)| repository).to_owned();
            names.iter().any(|name| *name == wanted || plain(name) == wanted)
        };
        let label = |name: &str, value: Option<&str>| {
            self.attributes.contains_key(name) && value.is_none_or(|value| attribute(name) == value)
        };
        filters.any("type", |v| v == self.kind)
            && filters.any("event", |v| self.action == v || self.action.starts_with(&format!("{v}:")))
            && filters.any("scope", |v| v == "local")
            && filters.any("container", |v| is("container", v) || attribute("container").starts_with(v))
            && filters.any("volume", |v| is("volume", v))
            && filters.any("network", |v| is("network", v))
            && filters.any("image", |v| matches!(self.kind.as_str(), "image" | "container") && image(v))
            && !["config", "daemon", "node", "plugin", "secret", "service"].iter().any(|kind| filters.has(kind))
            && filters.labels(label)
    }
}

impl Hub {
    pub fn new() -> Self {
        Self { live: broadcast::channel(1024).0, past: Mutex::default(), seen: Mutex::default() }
    }

    pub fn publish(&self, event: Event) {
        let event = Arc::new(event);
        let mut past = lock(&self.past);
        if past.len() == RING {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listens: the ring keeps it.
        let _ = self.live.send(event);
    }

    /// The kept events and a receiver of those that follow.
    pub fn follow(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = lock(&self.past);
        (past.iter().cloned().collect(), self.live.subscribe())
    }

    fn first_time(&self, event: &proto::NodeEvent) -> bool {
        let number = (event.epoch, event.seq, event.node_id.clone());
        let mut seen = lock(&self.seen);
        if seen.iter().rev().any(|other| *other == number) {
            return false;
        }
        if seen.len() == SEEN {
            seen.pop_front();
        }
        seen.push_back(number);
        true
    }
}

impl App {
    /// Applies what a node says has happened, then tells Docker's events and those who wait.
    pub async fn apply(&self, events: &[proto::NodeEvent], position: Option<u64>) -> Outcome<()> {
        let changes: Vec<metadata::Change> = events.iter().filter_map(change).collect();
        if events.is_empty() && position.is_none() {
            return Ok(());
        }
        // Each event is told once, whether the reply or the stream brings it first.
        let told: Vec<&proto::NodeEvent> =
            events.iter().filter(|event| !event.action.is_empty() && self.events.first_time(event)).collect();
        let mut attributes = HashMap::new();
        for id in told.iter().map(|event| container_id(event)) {
            if !attributes.contains_key(id)
                && let Some(container) = self.db.container(id).await?
            {
                attributes.insert(id.to_owned(), attributes_of(&container));
            }
        }
        let applied = self.db.apply(&changes, position.map(|number| (STREAM, number))).await?;
        let statuses = events.iter().filter_map(|event| event.container.as_ref());
        for (status, _) in statuses.zip(applied).filter(|(_, applied)| *applied) {
            self.changed_to(status);
        }
        for event in told {
            if let Some(exec_id) = event.attributes.get("execID").filter(|_| event.action == "exec_die") {
                let code = event.attributes.get("exitCode").and_then(|code| code.parse().ok()).unwrap_or(137);
                self.exec_ended(exec_id, code).await?;
            }
            let id = container_id(event);
            let mut attributes = attributes.get(id).cloned().unwrap_or_default();
            let network = event.container.as_ref().and_then(|status| status.network.clone());
            let time_ns = if event.time_ns == 0 { now_ns() } else { event.time_ns };
            // Docker joins the network just before the start, and leaves it just after the end.
            if event.action == "start" {
                self.tell_network("connect", id, network.as_ref(), time_ns);
            }
            attributes.extend(event.attributes.iter().map(|(key, value)| (key.clone(), value.clone().into())));
            let (kind, action) = ("container".to_owned(), event.action.clone());
            self.events.publish(Event { time_ns, kind, action, id: id.to_owned(), attributes });
            if event.action == "die" {
                self.tell_network("disconnect", id, network.as_ref(), time_ns);
            }
        }
        Ok(())
    }

    /// The record of a container has changed: those who wait hear it, and AutoRemove acts on it.
    pub fn changed_to(&self, status: &proto::ContainerStatus) {
        let over = matches!(status.state(), ContainerState::Exited | ContainerState::Dead);
        let (id, kept) = (status.id.clone(), (!status.removed).then(|| status.clone()));
        if over && kept.is_some() {
            self.remove_when_done(&id);
        }
        // Nobody waits.
        let _ = self.changed.send(Arc::new(Changed { id, status: kept }));
    }

    pub fn changed_to_gone(&self, id: &str) {
        let _ = self.changed.send(Arc::new(Changed { id: id.to_owned(), status: None }));
    }

    fn tell_network(&self, action: &str, id: &str, network: Option<&proto::NetworkEndpoint>, time_ns: i64) {
        let Some(network) = network.filter(|network| !network.network_id.is_empty()) else { return };
        let name = if network.network_name.is_empty() { "bridge" } else { &network.network_name };
        let attributes = [("container", id), ("name", name), ("type", name)];
        let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        let (kind, action, id) = ("network".to_owned(), action.to_owned(), network.network_id.clone());
        self.events.publish(Event { time_ns, kind, action, id, attributes });
    }

    /// An event of a container that the gateway itself causes.
    pub fn tell_container(&self, container: &metadata::Container, action: &str, more: &[(&str, &str)]) {
        let mut attributes = attributes_of(container);
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())));
        self.tell("container", action, &container.id, attributes);
    }

    /// An event that the gateway itself causes.
    pub fn tell(&self, kind: &str, action: &str, id: &str, attributes: Map<String, Value>) {
        let (kind, action, id) = (kind.to_owned(), action.to_owned(), id.to_owned());
        self.events.publish(Event { time_ns: now_ns(), kind, action, id, attributes });
    }
}

fn container_id(event: &proto::NodeEvent) -> &str {
    match (&event.container, &event.exec) {
        (Some(status), _) => &status.id,
        (None, Some(exec)) => &exec.container_id,
        (None, None) => event.attributes.get("containerID").map_or("", String::as_str),
    }
}

fn change(event: &proto::NodeEvent) -> Option<metadata::Change> {
    let status = event.container.as_ref()?;
    Some(metadata::Change {
        container_id: status.id.clone(),
        epoch: event.epoch,
        seq: event.seq,
        status: status.encode_to_vec(),
        removed: status.removed,
    })
}

/// Docker's attributes of every event of a container: image, name and labels.
pub fn attributes_of(container: &metadata::Container) -> Map<String, Value> {
    let mut attributes = Map::new();
    if let Ok(spec) = proto::ContainerSpec::decode(container.spec.as_slice()) {
        attributes.insert("image".into(), spec.image_name.into());
        let mut labels: Vec<_> = spec.labels.into_iter().collect();
        labels.sort();
        attributes.extend(labels.into_iter().map(|(key, value)| (key, value.into())));
    }
    attributes.insert("name".into(), container.name.clone().into());
    attributes
}

/// Projects the stream of node events into the database, from where it stopped.
pub async fn follow_events(app: Arc<App>, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        tokio::select! {
            () = cancel.cancelled() => {}
            done = follow_once(&app) => {
                if let Err(failure) = done {
                    tracing::warn!(error = %failure, "the stream of events broke off");
                }
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
        }
    }
}

async fn follow_once(app: &App) -> Outcome<()> {
    let position = app.db.position(STREAM).await?;
    let mut events = app.bus.events(if position == 0 { 0 } else { position + 1 }).await?.ready_chunks(BATCH);
    while let Some(batch) = events.next().await {
        let mut batch: Vec<(u64, proto::NodeEvent)> = batch.into_iter().collect::<Result<_, _>>()?;
        batch.retain(|(number, _)| *number > position);
        let Some(last) = batch.last().map(|(number, _)| *number) else { continue };
        let events: Vec<proto::NodeEvent> = batch.into_iter().map(|(_, event)| event).collect();
        app.apply(&events, Some(last)).await?;
    }
    Ok(())
}
