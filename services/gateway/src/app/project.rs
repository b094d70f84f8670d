//! What happened on nodes, brought into the database and to those who wait. On a database of several gateways each hears the
//! whole stream, from a position of its own; a change is written by whichever comes first, since its number says whether it is
//! newer than the row.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bus::Happened;
use futures::StreamExt as _;
use prost::Message as _;
use proto::ContainerState;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::events::Event;
use super::known::Known;
use super::wait::Changed;
use super::{App, Outcome, now_ns};

/// Events of the stream that are applied in one transaction at most.
const BATCH: usize = 128;
const STREAM: &str = "EVENTS";
const PAUSE: Duration = Duration::from_millis(500);

impl App {
    /// Applies what a node says has happened, then tells Docker's events and those who wait.
    pub async fn apply(&self, events: &[proto::NodeEvent], position: Option<u64>) -> Outcome<()> {
        let changes: Vec<metadata::Change> = events.iter().filter_map(change).collect();
        if events.is_empty() && position.is_none() {
            return Ok(());
        }
        let told: Vec<&proto::NodeEvent> = events.iter().filter(|event| !event.action.is_empty()).collect();
        let mut known = HashMap::new();
        for event in &told {
            let id = container_id(event);
            if !known.contains_key(id) {
                known.insert(id.to_owned(), self.known(id).await?);
            }
            if let Some(exec_id) = event.attributes.get("execID").filter(|_| event.action == "exec_die") {
                let code = event.attributes.get("exitCode").and_then(|code| code.parse().ok()).unwrap_or(137);
                self.exec_ended(exec_id, code).await?;
            }
        }
        let applied = self.db.apply(&changes, position.map(|number| (STREAM, number))).await?;
        // Each event is told once, whether the reply or the stream brings it first. Nothing is waited for from here on: while
        // one of the two were between taking it and telling it, the other would tell what comes after it.
        for event in told.into_iter().filter(|e| self.events.first_time(e.epoch, e.seq, &e.node_id)) {
            let id = container_id(event);
            self.tell_change(event, known.get(id).and_then(Option::as_deref));
            if event.action == "destroy" {
                self.containers.let_go(id);
            }
        }
        let changed = events.iter().filter_map(|event| Some((event, event.container.as_ref()?)));
        for ((event, status), applied) in changed.zip(applied) {
            // Another gateway may have written it; those who wait here hear it all the same.
            if self.events.is_newest(status, (event.epoch, event.seq)) || applied {
                self.wake(status);
            }
            if applied {
                self.remove_if_over(status);
            }
        }
        Ok(())
    }

    /// A node's event as Docker tells it: networks and volumes are joined just before a start, left just after an end.
    fn tell_change(&self, event: &proto::NodeEvent, known: Option<&Known>) {
        let mut attributes = known.map(Known::attributes).unwrap_or_default();
        attributes.extend(event.attributes.iter().map(|(key, value)| (key.clone(), value.clone().into())));
        let status = event.container.clone().unwrap_or_default();
        let time_ns = if event.time_ns == 0 { now_ns() } else { event.time_ns };
        let publish = |kind: &str, action: &str, id: &str, attributes: Map<String, Value>| {
            let (kind, action, id) = (kind.to_owned(), action.to_owned(), id.to_owned());
            self.events.publish(Event { time_ns, kind, action, id, attributes });
        };
        let id = container_id(event);
        let network = |action: &str| {
            if let Some((network_id, name, driver)) =
                known.and_then(|known| self.network_of(&known.0, status.network.as_ref()))
            {
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

    /// Those who wait for a container hear what it is now.
    pub fn wake(&self, status: &proto::ContainerStatus) {
        let kept = (!status.removed).then(|| status.clone());
        // Nobody waits.
        let _ = self.changed.send(Arc::new(Changed { id: status.id.clone(), status: kept }));
    }

    /// AutoRemove acts on an end that this gateway has written.
    fn remove_if_over(&self, status: &proto::ContainerStatus) {
        if matches!(status.state(), ContainerState::Exited | ContainerState::Dead) && !status.removed {
            self.remove_when_done(&status.id);
        }
    }

    /// A node's inventory has changed the record of a container, of which no event tells the other gateways.
    pub fn healed_to(&self, status: &proto::ContainerStatus, number: (u64, u64)) {
        self.events.is_newest(status, number);
        self.wake(status);
        self.remove_if_over(status);
        self.share_change(&status.id);
    }

    pub fn changed_to_gone(&self, id: &str) {
        self.containers.let_go(id);
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

/// Projects the stream of events into the database: first from where any gateway stopped, then from where this one did.
pub async fn follow_events(app: Arc<App>, cancel: CancellationToken) {
    let mut heard = None;
    while !cancel.is_cancelled() {
        tokio::select! {
            () = cancel.cancelled() => {}
            done = follow_once(&app, &mut heard) => {
                if let Err(failure) = done {
                    tracing::warn!(error = %failure, "the stream of events broke off");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn follow_once(app: &App, heard: &mut Option<u64>) -> Outcome<()> {
    let position = match *heard {
        Some(position) => position,
        None => app.db.position(STREAM).await?,
    };
    let mut events = app.bus.events(if position == 0 { 0 } else { position + 1 }).await?.ready_chunks(BATCH);
    *heard = Some(position);
    while let Some(batch) = events.next().await {
        let mut on_nodes = Vec::new();
        for happened in batch {
            let (number, happened) = happened?;
            if heard.is_some_and(|heard| number <= heard) {
                continue;
            }
            match happened {
                Happened::OnNode(event) => on_nodes.push((number, *event)),
                Happened::AtGateway(event) => {
                    // What happened before it comes first.
                    project(app, &mut on_nodes, heard).await?;
                    app.hear(*event).await?;
                    *heard = Some(number);
                }
            }
        }
        project(app, &mut on_nodes, heard).await?;
    }
    Ok(())
}

/// Applies events of nodes that follow one another.
async fn project(app: &App, events: &mut Vec<(u64, proto::NodeEvent)>, heard: &mut Option<u64>) -> Outcome<()> {
    let Some(last) = events.last().map(|(number, _)| *number) else { return Ok(()) };
    let batch: Vec<_> = events.drain(..).map(|(_, event)| event).collect();
    app.apply(&batch, Some(last)).await?;
    *heard = Some(last);
    Ok(())
}
