use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use engine_api::event;
use futures::StreamExt as _;
use prost::Message as _;
use proto::ContainerState;
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::builds::labels_of;
use super::filters::Filters;
use super::wait::Changed;
use super::{App, Outcome, lock, now_ns};

/// How many past events GET /events?since= can show.
const SHOWN: usize = 256;
/// How many are kept; those of Boxyard's own kinds are not shown to the Engine API.
const KEPT: usize = 1024;
/// Kinds that Docker does not have.
const OWN_KINDS: &[&str] = &["build", "transfer"];
/// Numbers of node events that were seen already: a reply and the stream bring the same ones.
const SEEN: usize = 4096;
/// Events of the stream that are applied in one transaction at most.
const BATCH: usize = 128;
pub const STREAM: &str = "EVENTS";

/// Docker's events: live ones, and the last few.
pub struct Hub {
    /// Names this start of the gateway: numbers of another one mean nothing here.
    pub boot: String,
    live: broadcast::Sender<Arc<Told>>,
    past: Mutex<VecDeque<Arc<Told>>>,
    seen: Mutex<VecDeque<(u64, u64, String)>>,
}

/// An event that was told, numbered from 1 without a gap.
pub struct Told {
    pub number: u64,
    event: Event,
}

impl Deref for Told {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

pub struct Event {
    pub time_ns: i64,
    pub kind: String,
    pub action: String,
    pub id: String,
    pub attributes: Map<String, Value>,
}

impl Event {
    /// Is it of a kind that Docker does not have?
    pub fn is_own(&self) -> bool {
        OWN_KINDS.contains(&self.kind.as_str())
    }

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
        let boot = hex::encode(rand::random::<[u8; 4]>());
        Self { boot, live: broadcast::channel(1024).0, past: Mutex::default(), seen: Mutex::default() }
    }

    pub fn publish(&self, event: Event) {
        let mut past = lock(&self.past);
        let told = Arc::new(Told { number: past.back().map_or(0, |last| last.number) + 1, event });
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(told.clone());
        // Nobody listens: the ring keeps it.
        let _ = self.live.send(told);
    }

    /// The kept events of all kinds and a receiver of those that follow.
    pub fn follow_all(&self) -> (Vec<Arc<Told>>, broadcast::Receiver<Arc<Told>>) {
        let past = lock(&self.past);
        (past.iter().cloned().collect(), self.live.subscribe())
    }

    /// The same as Docker has it: the last few events, and [`Event::is_own`] ones neither here nor, by the caller, there.
    pub fn follow(&self) -> (Vec<Arc<Told>>, broadcast::Receiver<Arc<Told>>) {
        let (mut past, live) = self.follow_all();
        past.retain(|told| !told.is_own());
        past.drain(..past.len().saturating_sub(SHOWN));
        (past, live)
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
        let mut records = HashMap::new();
        for id in told.iter().map(|event| container_id(event)) {
            if !records.contains_key(id)
                && let Some(container) = self.db.container(id).await?
            {
                records.insert(id.to_owned(), container);
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
            self.tell_change(event, records.get(container_id(event)));
        }
        Ok(())
    }

    /// A node's event as Docker tells it: networks and volumes are joined just before a start, left just after an end.
    fn tell_change(&self, event: &proto::NodeEvent, record: Option<&metadata::Container>) {
        let spec = record.map(super::view::spec_of).unwrap_or_default();
        let mut attributes = record.map(|record| attributes_from(record, &spec)).unwrap_or_default();
        attributes.extend(event.attributes.iter().map(|(key, value)| (key.clone(), value.clone().into())));
        let status = event.container.clone().unwrap_or_default();
        let time_ns = if event.time_ns == 0 { now_ns() } else { event.time_ns };
        let publish = |kind: &str, action: &str, id: &str, attributes: Map<String, Value>| {
            let (kind, action, id) = (kind.to_owned(), action.to_owned(), id.to_owned());
            self.events.publish(Event { time_ns, kind, action, id, attributes });
        };
        let id = container_id(event);
        let network = |action: &str| {
            if let Some((network_id, name, driver)) = self.network_of(&spec, status.network.as_ref()) {
                publish(
                    "network",
                    action,
                    &network_id,
                    pairs(&[("container", id), ("name", &name), ("type", &driver)]),
                );
            }
        };
        let volumes = || status.mounts.iter().filter(|mount| mount.r#type == "volume");
        if event.action == "start" {
            network("connect");
            for volume in volumes() {
                let writable = if volume.rw { "true" } else { "false" };
                let more = [
                    ("container", id),
                    ("destination", &volume.target),
                    ("driver", "local"),
                    ("propagation", &volume.propagation),
                    ("read/write", writable),
                ];
                publish("volume", "mount", &volume.name, pairs(&more));
            }
        }
        publish("container", &event.action, id, attributes);
        if event.action == "die" {
            network("disconnect");
            for volume in volumes() {
                publish("volume", "unmount", &volume.name, pairs(&[("container", id), ("driver", "local")]));
            }
        }
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

    /// Id, name and driver of the network that a container is in.
    fn network_of(
        &self,
        spec: &proto::ContainerSpec,
        endpoint: Option<&proto::NetworkEndpoint>,
    ) -> Option<(String, String, String)> {
        let driver = match spec.network_mode.as_str() {
            mode @ ("bridge" | "host") => mode,
            "none" => "null",
            _ => return None,
        };
        let id = endpoint.map(|endpoint| endpoint.network_id.clone()).filter(|id| !id.is_empty());
        let id = id.or_else(|| self.network_id(&spec.network_mode))?;
        Some((id, spec.network_mode.clone(), driver.to_owned()))
    }

    /// An event of an image: its labels, and `name` as Docker fills it.
    pub fn tell_image(&self, image: &metadata::Image, action: &str, name: &str) {
        let mut attributes = labels_of(&super::images::config_of(image));
        attributes.insert("name".into(), name.into());
        self.tell("image", action, &image.id, attributes);
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
        node_id: event.node_id.clone(),
        container_id: status.id.clone(),
        epoch: event.epoch,
        seq: event.seq,
        status: status.encode_to_vec(),
        removed: status.removed,
    })
}

fn pairs(list: &[(&str, &str)]) -> Map<String, Value> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect()
}

/// Docker's attributes of every event of a container: image, name and labels.
pub fn attributes_of(container: &metadata::Container) -> Map<String, Value> {
    attributes_from(container, &super::view::spec_of(container))
}

fn attributes_from(container: &metadata::Container, spec: &proto::ContainerSpec) -> Map<String, Value> {
    let mut attributes: Map<String, Value> =
        spec.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    attributes.insert("image".into(), spec.image_name.clone().into());
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

#[cfg(test)]
mod tests {
    use super::super::filters::OF_EVENTS;
    use super::*;

    #[test]
    fn filters_choose_events_as_docker_does() {
        let die = Event {
            time_ns: 1,
            kind: "container".to_owned(),
            action: "exec_create: ls -l".to_owned(),
            id: "abcdef".to_owned(),
            attributes: pairs(&[("image", "busybox:1"), ("name", "web"), ("colour", "red")]),
        };
        for (filters, passes) in [
            ("", true),
            (r#"{"type":["container"]}"#, true),
            (r#"{"type":["image"]}"#, false),
            (r#"{"type":["image","container"]}"#, true),
            (r#"{"event":["exec_create"]}"#, true),
            (r#"{"event":["exec"]}"#, false),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["other"]}"#, false),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"image":["busybox:2"]}"#, false),
            (r#"{"label":["colour=red"]}"#, true),
            (r#"{"label":["colour=red","missing"]}"#, false),
            (r#"{"daemon":["x"]}"#, false),
        ] {
            let filters_read = Filters::parse(filters, OF_EVENTS).expect("reads");
            assert_eq!(die.passes(&filters_read), passes, "{filters}");
        }
    }

    #[test]
    fn kept_events_are_numbered_and_docker_sees_only_its_own_last_ones() {
        let hub = Hub::new();
        let event = |kind: &str| Event {
            time_ns: 1,
            kind: kind.to_owned(),
            action: String::new(),
            id: String::new(),
            attributes: Map::new(),
        };
        for _ in 0..KEPT {
            hub.publish(event("container"));
            hub.publish(event("build"));
        }
        let (all, _) = hub.follow_all();
        assert_eq!((all.len(), all[0].number, all[KEPT - 1].number), (KEPT, 1025, 2048));
        let (shown, _) = hub.follow();
        assert!(shown.len() == SHOWN && shown.iter().all(|told| told.kind == "container"));
        assert_eq!(shown[SHOWN - 1].number, 2047);
    }

    #[test]
    fn an_event_that_reply_and_stream_bring_is_told_once() {
        let hub = Hub::new();
        let event = |epoch, seq| proto::NodeEvent { node_id: "n".to_owned(), epoch, seq, ..Default::default() };
        assert!(hub.first_time(&event(1, 1)) && hub.first_time(&event(2, 1)));
        assert!(!hub.first_time(&event(1, 1)));
    }
}
