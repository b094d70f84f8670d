//! A reader of server-sent events.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use kit::wait_until;
use serde_json::Value;

pub struct Stream {
    connection: TcpStream,
    text: Arc<Mutex<String>>,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub id: String,
    /// Empty for a plain one.
    pub name: String,
    pub data: Value,
}

impl Stream {
    /// Opens one and returns when its first event is there.
    pub fn open(port: u16, query: &str, last_id: Option<&str>) -> Self {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("the gateway listens");
        let last = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        // HTTP/1.0, so that the body comes as it is.
        let request = format!("GET /boxyard/v1/events{query} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{last}\r\n");
        connection.write_all(request.as_bytes()).expect("sent");
        let text = Arc::new(Mutex::new(String::new()));
        let (mut reading, kept) = (connection.try_clone().expect("a second handle"), text.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut buffer) {
                kept.lock().expect("no reader panics").push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        let stream = Self { connection, text };
        stream.wait_for("a first event", |_| true);
        stream
    }

    /// All that has come.
    pub fn sent(&self) -> Vec<Sent> {
        let text = self.text.lock().expect("no writer panics").clone();
        let Some((_, body)) = text.split_once("\r\n\r\n") else { return Vec::new() };
        let whole = body.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let field = |block: &str, name: &str| {
            let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            lines.map(str::to_owned).next()
        };
        let event = |block: &str| {
            let data = serde_json::from_str(&field(block, "data")?).expect("data is JSON");
            let name = field(block, "event").unwrap_or_default();
            Some(Sent { id: field(block, "id").expect("an event has an id"), name, data })
        };
        whole.split("\n\n").filter_map(event).collect()
    }

    /// Waits for an event of this kind.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Sent) -> bool) -> Sent {
        wait_until(what, 60, || self.sent().into_iter().find(&is_it))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.connection.shutdown(Shutdown::Both);
    }
}
