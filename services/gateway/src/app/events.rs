use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use engine_api::event;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use super::builds::labels_of;
use super::filters::Filters;
use super::known::Known;
use super::{App, lock, now_ns};

/// How many past events GET /events?since= can show.
const SHOWN: usize = 256;
/// How many are kept; those of Boxyard's own kinds are not shown to the Engine API.
const KEPT: usize = 1024;
/// Kinds that Docker does not have.
const OWN_KINDS: &[&str] = &["build", "transfer", "worker"];
/// Numbers of events that were seen already: a reply and the stream bring the same ones.
const SEEN: usize = 4096;

/// Docker's events: live ones, and the last few.
pub struct Hub {
    /// Names this start of the gateway: numbers of another one mean nothing here.
    pub boot: String,
    live: broadcast::Sender<Arc<Told>>,
    past: Mutex<VecDeque<Arc<Told>>>,
    seen: Mutex<VecDeque<(u64, u64, String)>>,
    /// The newest number (epoch, sequence) that was heard of each container.
    newest: Mutex<HashMap<String, (u64, u64)>>,
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
        Self {
            boot,
            live: broadcast::channel(1024).0,
            past: Mutex::default(),
            seen: Mutex::default(),
            newest: Mutex::default(),
        }
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

    /// Is this the first time that the event with this number (epoch, sequence) of `teller` is heard?
    pub fn first_time(&self, epoch: u64, seq: u64, teller: &str) -> bool {
        let number = (epoch, seq, teller.to_owned());
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

    /// Is this newer than all that was heard of the container? One that has gone is forgotten.
    pub fn is_newest(&self, status: &proto::ContainerStatus, number: (u64, u64)) -> bool {
        let mut newest = lock(&self.newest);
        let is_newest = newest.get(&status.id).is_none_or(|last| *last < number);
        if status.removed {
            newest.remove(&status.id);
        } else if is_newest {
            newest.insert(status.id.clone(), number);
        }
        is_newest
    }
}

impl App {
    /// An event of an image: its labels, and `name` as Docker fills it.
    pub fn tell_image(&self, image: &metadata::Image, action: &str, name: &str) {
        let mut attributes = labels_of(&super::images::config_of(image));
        attributes.insert("name".into(), name.into());
        self.tell("image", action, &image.id, attributes);
    }

    /// An event of a container that the gateway itself causes.
    pub fn tell_container(&self, container: &metadata::Container, action: &str, more: &[(&str, &str)]) {
        let known = Known::of(container);
        let mut attributes = known.attributes();
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())));
        let (kind, action, id) = ("container".to_owned(), action.to_owned(), container.id.clone());
        let event = Event { time_ns: now_ns(), kind, action, id, attributes };
        self.share(&event, Some(known));
        self.events.publish(event);
    }

    /// An event that the gateway itself causes.
    pub fn tell(&self, kind: &str, action: &str, id: &str, attributes: Map<String, Value>) {
        let (kind, action, id) = (kind.to_owned(), action.to_owned(), id.to_owned());
        let event = Event { time_ns: now_ns(), kind, action, id, attributes };
        self.share(&event, None);
        self.events.publish(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_events_as_docker_does() {
        let die = Event {
            time_ns: 1,
            kind: "container".to_owned(),
            action: "exec_create: ls -l".to_owned(),
            id: "abcdef".to_owned(),
            attributes: [("image", "busybox:1"), ("name", "web"), ("colour", "red")]
                .map(|(key, value)| (key.to_owned(), value.into()))
                .into_iter()
                .collect(),
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
            let filters_read = Filters::read(filters).expect("reads");
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
        assert!(hub.first_time(1, 1, "n") && hub.first_time(2, 1, "n") && hub.first_time(1, 1, "m"));
        assert!(!hub.first_time(1, 1, "n"));
    }

    #[test]
    fn what_is_older_than_what_was_heard_is_no_news() {
        let hub = Hub::new();
        let status =
            |removed| proto::ContainerStatus { id: "c".to_owned(), removed, ..proto::ContainerStatus::default() };
        for (number, removed, news) in [
            ((1, 2), false, true),
            ((1, 2), false, false),
            ((1, 1), false, false),
            ((2, 1), false, true),
            ((1, 9), false, false),
            ((2, 2), true, true),
        ] {
            assert_eq!(hub.is_newest(&status(removed), number), news, "{number:?}");
        }
        assert!(lock(&hub.newest).is_empty(), "a container that has gone is forgotten");
    }
}
