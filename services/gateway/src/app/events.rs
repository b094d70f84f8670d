use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use engine_api::event;
use futures::StreamExt as _;
use prost::Message as _;
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{App, Outcome, lock, now_ns};

/// How many past events GET /events?since= can show.
const RING: usize = 256;
/// Numbers of node events that were seen already: a reply and the stream bring the same ones.
const SEEN: usize = 4096;
const STREAM: &str = "EVENTS";

/// Docker's events: live ones, and the last few.
pub struct Hub {
    live: broadcast::Sender<Arc<Event>>,
    past: Mutex<VecDeque<Arc<Event>>>,
    seen: Mutex<VecDeque<(String, u64, u64)>>,
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
        let number = (event.node_id.clone(), event.epoch, event.seq);
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
        if changes.is_empty() && position.is_none() && events.is_empty() {
            return Ok(());
        }
        let mut names = std::collections::HashMap::new();
        for event in events {
            let id = container_id(event);
            if !event.action.is_empty()
                && !names.contains_key(id)
                && let Some(container) = self.db.find_containers(id).await?.into_iter().next()
            {
                names.insert(id.to_owned(), attributes_of(&container));
            }
        }
        let applied = self.db.apply(&changes, position.map(|number| (STREAM, number))).await?;
        let fresh = changes.iter().zip(applied).filter(|(_, applied)| *applied).map(|(change, _)| change);
        for change in fresh.filter(|change| !change.removed) {
            self.remove_when_done(&change.container_id);
        }
        for change in &changes {
            // Nobody waits.
            let _ = self.changed.send(change.container_id.clone());
        }
        for event in events.iter().filter(|event| self.events.first_time(event) && !event.action.is_empty()) {
            let id = container_id(event);
            let mut attributes = names.get(id).cloned().unwrap_or_default();
            for (key, value) in &event.attributes {
                attributes.insert(key.clone(), value.clone().into());
            }
            let time_ns = if event.time_ns == 0 { now_ns() } else { event.time_ns };
            let (kind, action, id) = ("container".to_owned(), event.action.clone(), id.to_owned());
            self.events.publish(Event { time_ns, kind, action, id, attributes });
        }
        Ok(())
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
    let mut position = app.db.position(STREAM).await?;
    let mut events = app.bus.events(if position == 0 { 0 } else { position + 1 }).await?;
    while let Some(next) = events.next().await {
        let (number, event) = next?;
        if number <= position && position != 0 {
            continue;
        }
        position = number;
        app.apply(&[event], Some(number)).await?;
    }
    Ok(())
}
