//! Events as they happen, by server-sent events (the WHATWG HTML standard's `text/event-stream`).
//!
//! A stream begins with `hello`, which says whether it goes on where the last one of this client broke off; if not, the
//! client reads the lists again. Ids are good for one start of the gateway.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use http::{HeaderMap, header};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, timeout_at};

use super::api::{About, Parameter, ParameterKind};
use crate::app::App;
use crate::app::events::Told;
use crate::app::overview::shape::Time;
use crate::http::answer::Answer;
use crate::http::query::Query;
use crate::shape;

/// A silent stream says so often that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub const ABOUT: About = About {
    summary: "What happens, as server-sent events: first `hello`, then each event as the `data` of one without a name.",
    parameters: &[
        Parameter {
            name: "Last-Event-ID",
            about: "Go on behind this event; `hello` says whether that was possible.",
            kind: ParameterKind::Header,
        },
        Parameter {
            name: "since",
            about: "Begin with the kept events from this time on, in unix seconds.",
            kind: ParameterKind::Text,
        },
        Parameter { name: "type", about: "Only objects of this type.", kind: ParameterKind::Texts },
        Parameter { name: "event", about: "Only this action.", kind: ParameterKind::Texts },
    ],
    content_type: "text/event-stream",
    refusals: &[400],
};

shape! {
    /// Something that has happened.
    pub struct Event {
        /// Number of the event; as `Last-Event-ID` it asks for those behind it.
        pub id: String,
        /// When it happened.
        pub at: Option<Time>,
        /// Docker's types (container, image, network, volume), build and transfer.
        pub r#type: String,
        /// Docker's actions (create, start, die, ...); of a build queued, started, done, failed, cancelled; of a transfer
        /// began, ended.
        pub action: String,
        /// Id of the object.
        pub object: String,
        /// More about it, such as name and image.
        pub attributes: Map<String, Value>,
    }
}

/// Types and actions that are wanted; none means all.
struct Wanted {
    types: Vec<String>,
    actions: Vec<String>,
}

impl Wanted {
    fn has(&self, told: &Told) -> bool {
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|wanted| wanted == value);
        any(&self.types, &told.kind) && any(&self.actions, &told.action)
    }
}

/// What one client is sent.
struct Follower {
    boot: String,
    wanted: Wanted,
    ready: VecDeque<String>,
    live: Receiver<Arc<Told>>,
}

pub async fn follow(State(app): State<Arc<App>>, headers: HeaderMap, query: Query) -> Answer {
    let since = crate::http::nanoseconds(&query, "since")?;
    let (past, live) = app.events.follow_all();
    let boot = app.events.boot.clone();
    let last = past.last().map_or(0, |told| told.number);
    let first = past.first().map_or(last + 1, |told| told.number);
    let seen = headers.get("last-event-id").and_then(|id| number_of(id.to_str().ok()?, &boot));
    let seen = seen.filter(|seen| (first..=last + 1).contains(&(seen + 1)));
    let begin = match seen {
        Some(seen) => seen + 1,
        None if since != 0 => past.iter().find(|told| told.time_ns >= since).map_or(last + 1, |told| told.number),
        None => last + 1,
    };
    let hello = json!({"resumed": seen.is_some(), "version": service::VERSION});
    let hello = format!("retry: 1000\nid: {boot}-{}\nevent: hello\ndata: {hello}\n\n", begin - 1);
    let mut follower = Follower {
        boot,
        wanted: Wanted { types: query.all("type"), actions: query.all("event") },
        ready: VecDeque::from([hello]),
        live,
    };
    for told in past.iter().filter(|told| told.number >= begin) {
        follower.take(told);
    }
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok(Response::from_parts((headers, ()).into_response().into_parts().0, Body::from_stream(follower.stream())))
}

/// The number in an id of this start.
fn number_of(id: &str, boot: &str) -> Option<u64> {
    id.strip_prefix(boot)?.strip_prefix('-')?.parse().ok()
}

impl Follower {
    fn take(&mut self, told: &Told) {
        if !self.wanted.has(told) {
            return;
        }
        let id = format!("{}-{}", self.boot, told.number);
        let event = Event {
            id: id.clone(),
            at: Time::of_ns(told.time_ns),
            r#type: told.kind.clone(),
            action: told.action.clone(),
            object: told.id.clone(),
            attributes: told.attributes.clone(),
        };
        // JSON has no line ends of its own, so it is one line of data.
        let data = serde_json::to_string(&event).unwrap_or_default();
        self.ready.push_back(format!("id: {id}\ndata: {data}\n\n"));
    }

    /// Ends when the client has fallen too far behind: it comes again with the last id that it has seen.
    fn stream(self) -> impl Stream<Item = Result<String, Infallible>> {
        futures::stream::unfold(self, |mut follower| async move {
            let beat = Instant::now() + HEARTBEAT;
            loop {
                if let Some(text) = follower.ready.pop_front() {
                    return Some((Ok(text), follower));
                }
                match timeout_at(beat, follower.live.recv()).await {
                    Ok(Ok(told)) => follower.take(&told),
                    Ok(Err(_)) => return None,
                    Err(_) => return Some((Ok(": here\n\n".to_owned()), follower)),
                }
            }
        })
    }
}
