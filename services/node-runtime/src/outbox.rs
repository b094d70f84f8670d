//! Events on their way to the stream. They lie in a file until the stream has them, so that a node that is killed
//! between a change and its telling still tells it after its restart; told twice is harmless, their numbers say so.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::Bus;
use prost::Message as _;
use proto::NodeEvent;
use tokio::sync::mpsc;

use crate::node::lock;

pub struct Outbox {
    state: Arc<Mutex<State>>,
    queue: mpsc::UnboundedSender<NodeEvent>,
}

struct State {
    file: File,
    /// Not acknowledged yet.
    waiting: usize,
}

impl Outbox {
    /// Begins to publish, first what an earlier run left.
    pub fn open(path: &Path, bus: Bus) -> std::io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (left, whole) = decode(&bytes);
        // A record that was cut short must not stand before the next one.
        file.set_len(whole as u64)?;
        let state = Arc::new(Mutex::new(State { file, waiting: left.len() }));
        let (queue, events) = mpsc::unbounded_channel();
        for event in left {
            let _ = queue.send(event);
        }
        tokio::spawn(publish(bus, events, state.clone()));
        Ok(Self { state, queue })
    }

    pub fn put(&self, event: NodeEvent) {
        let mut state = lock(&self.state);
        state.waiting += 1;
        if let Err(error) = state.file.write_all(&event.encode_length_delimited_to_vec()) {
            // A full disk: it is still told unless this process dies before.
            tracing::warn!(%error, "an event could not be kept");
        }
        let _ = self.queue.send(event);
    }
}

/// The whole records at the beginning, and where they end.
fn decode(bytes: &[u8]) -> (Vec<NodeEvent>, usize) {
    let (mut events, mut rest) = (Vec::new(), bytes);
    loop {
        let before = rest.len();
        match NodeEvent::decode_length_delimited(&mut rest) {
            Ok(event) if before > 0 => events.push(event),
            _ => return (events, bytes.len() - before),
        }
    }
}

/// In order; an event is sent again until the stream has it.
async fn publish(bus: Bus, mut events: mpsc::UnboundedReceiver<NodeEvent>, state: Arc<Mutex<State>>) {
    while let Some(event) = events.recv().await {
        while let Err(error) = bus.publish_event(&event).await {
            tracing::warn!(%error, "an event could not be published yet");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let mut state = lock(&state);
        state.waiting -= 1;
        if state.waiting == 0
            && let Err(error) = state.file.set_len(0)
        {
            tracing::warn!(%error, "the events that were published could not be cleared");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cut_short_is_left_out() {
        let event = |seq| NodeEvent { seq, action: "die".into(), ..NodeEvent::default() };
        let mut bytes = event(1).encode_length_delimited_to_vec();
        bytes.extend(event(2).encode_length_delimited_to_vec());
        let whole = bytes.len();
        bytes.extend(&event(3).encode_length_delimited_to_vec()[..4]);
        let (events, end) = decode(&bytes);
        assert_eq!((events, end), (vec![event(1), event(2)], whole));
        assert_eq!(decode(&[]), (Vec::new(), 0));
    }
}
