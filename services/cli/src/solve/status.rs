//! What is known of a build's steps.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::failure::Outcome;

/// Output that is kept of each step for the case that it fails.
const KEPT_BYTES: usize = 256 << 10;

/// BuildKit's SolveStatus, with what Boxyard adds to it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SolveStatus {
    vertexes: Vec<VertexUpdate>,
    statuses: Vec<StatusUpdate>,
    logs: Vec<LogUpdate>,
    warnings: Vec<WarningUpdate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VertexUpdate {
    digest: String,
    name: String,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
    cached: bool,
    error: String,
    worker: String,
    line: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusUpdate {
    id: String,
    vertex: String,
    current: i64,
    total: i64,
    timestamp: Option<Timestamp>,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LogUpdate {
    vertex: String,
    data: String,
    timestamp: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WarningUpdate {
    vertex: String,
    short: String,
    url: String,
}

/// A step.
#[derive(Debug, Default)]
pub struct Vertex {
    pub name: String,
    pub started: Option<Timestamp>,
    pub completed: Option<Timestamp>,
    pub cached: bool,
    pub error: String,
    pub worker: String,
    /// Of the Dockerfile, 0: none.
    pub line: u32,
    pub statuses: Vec<Status>,
    /// Lines of output with the seconds since the start; not yet told.
    pub untold: Vec<String>,
    /// A line that has not come to its end.
    partial: Vec<u8>,
    /// The last lines, for a terminal and for an error.
    pub kept: Vec<String>,
    kept_bytes: usize,
    pub warnings: Vec<String>,
    /// Warnings that were told.
    pub told_warnings: usize,
    /// In plain text; 0: not yet told.
    pub number: usize,
    pub is_told: bool,
}

/// A part of a step: a layer that is fetched, files that are sent.
#[derive(Debug, Default, Clone)]
pub struct Status {
    pub id: String,
    pub current: i64,
    pub total: i64,
    pub started: Option<Timestamp>,
    pub completed: Option<Timestamp>,
    pub timestamp: Option<Timestamp>,
    pub changed: bool,
}

/// Steps in the order in which they were first told.
#[derive(Debug, Default)]
pub struct Solve {
    pub vertices: Vec<Vertex>,
    numbers: HashMap<String, usize>,
    /// The build's own start.
    pub started: Option<Timestamp>,
}

impl Solve {
    /// Takes an update in; gives the steps that it is about.
    pub fn update(&mut self, trace: &Value) -> Outcome<Vec<usize>> {
        let SolveStatus { vertexes, statuses, logs, warnings } = SolveStatus::deserialize(trace)?;
        self.started.get_or_insert_with(Timestamp::now);
        let mut touched = Vec::new();
        for update in vertexes {
            let at = self.find(&update.digest);
            let vertex = &mut self.vertices[at];
            vertex.name = update.name;
            vertex.started = update.started.or(vertex.started);
            vertex.completed = update.completed;
            vertex.cached = update.cached;
            vertex.line = update.line.max(vertex.line);
            for (old, new) in [(&mut vertex.error, update.error), (&mut vertex.worker, update.worker)] {
                if !new.is_empty() {
                    *old = new;
                }
            }
            if vertex.completed.is_some() {
                vertex.end_line();
            }
            touched.push(at);
        }
        for update in statuses {
            let at = self.find(&update.vertex);
            self.vertices[at].status(update);
            touched.push(at);
        }
        for update in logs {
            let at = self.find(&update.vertex);
            let text = STANDARD.decode(&update.data).unwrap_or_default();
            self.vertices[at].output(&text, update.timestamp);
            touched.push(at);
        }
        for WarningUpdate { vertex, short, url: _ } in warnings {
            let at = self.find(&vertex);
            let short = STANDARD.decode(&short).unwrap_or_default();
            self.vertices[at].warnings.push(String::from_utf8_lossy(&short).into_owned());
            touched.push(at);
        }
        Ok(touched)
    }

    fn find(&mut self, digest: &str) -> usize {
        if let Some(at) = self.numbers.get(digest) {
            return *at;
        }
        self.vertices.push(Vertex::default());
        self.numbers.insert(digest.to_owned(), self.vertices.len() - 1);
        self.vertices.len() - 1
    }

    pub fn completed(&self) -> usize {
        self.vertices.iter().filter(|vertex| vertex.completed.is_some()).count()
    }
}

impl Vertex {
    /// Seconds from start to end, or until now.
    pub fn seconds(&self) -> f64 {
        seconds(self.started, self.completed.or_else(|| Some(Timestamp::now())))
    }

    pub fn is_running(&self) -> bool {
        self.started.is_some() && self.completed.is_none()
    }

    fn status(&mut self, update: StatusUpdate) {
        let StatusUpdate { id, vertex: _, current, total, timestamp, started, completed } = update;
        let status = Status { id, current, total, started, completed, timestamp, changed: true };
        match self.statuses.iter_mut().find(|known| known.id == status.id) {
            Some(known) => *known = status,
            None => self.statuses.push(status),
        }
    }

    fn output(&mut self, text: &[u8], at: Option<Timestamp>) {
        let since = seconds(self.started, at);
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.line(since);
            }
        }
    }

    fn end_line(&mut self) {
        if !self.partial.is_empty() {
            self.line(self.seconds());
        }
    }

    fn line(&mut self, since: f64) {
        let text = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&text);
        // What overwrites its own line is shown as its last state.
        let text = text.trim_end_matches(['\n', '\r']).rsplit('\r').next().unwrap_or_default();
        let line = format!("{since:.3} {text}");
        self.kept_bytes += line.len();
        self.kept.push(line.clone());
        while self.kept_bytes > KEPT_BYTES && self.kept.len() > 1 {
            self.kept_bytes -= self.kept.remove(0).len();
        }
        self.untold.push(line);
    }
}

impl Status {
    /// `layer 1.05MB / 2.00MB 0.3s done`
    pub fn text(&self) -> String {
        let bytes = match (self.current, self.total) {
            (0, 0) => String::new(),
            (current, 0) => format!(" {}", bytes(current)),
            (current, total) => format!(" {} / {}", bytes(current), bytes(total)),
        };
        let took = seconds(self.started, self.completed.or(self.timestamp));
        let took = if took > 0.01 { format!(" {took:.1}s") } else { String::new() };
        let done = if self.completed.is_some() { " done" } else { "" };
        format!("{}{bytes}{took}{done}", self.id)
    }
}

/// `1.05MB`, as BuildKit writes sizes.
fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    format!("{value:.2}{unit}")
}

fn seconds(from: Option<Timestamp>, to: Option<Timestamp>) -> f64 {
    match (from, to) {
        (Some(from), Some(to)) => (to.duration_since(from).as_secs_f64()).max(0.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn output_comes_line_by_line() {
        let mut solve = Solve::default();
        let log =
            |text: &str, at: &str| json!({"logs": [{"vertex": "v", "data": STANDARD.encode(text), "timestamp": at}]});
        solve
            .update(&json!({"vertexes": [{"digest": "v", "name": "x", "started": "2024-01-01T00:00:00Z"}]}))
            .expect("taken");
        solve.update(&log("one\ntw", "2024-01-01T00:00:01.5Z")).expect("taken");
        assert_eq!(solve.vertices[0].untold, ["1.500 one"]);
        solve.update(&log("o\r\n10%\r20%\nthree", "2024-01-01T00:00:02Z")).expect("taken");
        assert_eq!(solve.vertices[0].untold, ["1.500 one", "2.000 two", "2.000 20%"]);
        solve
            .update(&json!({"vertexes": [{"digest": "v", "name": "x", "completed": "2024-01-01T00:00:03Z"}]}))
            .expect("taken");
        assert_eq!(solve.vertices[0].untold.last().map(String::as_str), Some("3.000 three"));
    }

    #[test]
    fn parts_of_a_step() {
        let at = |text: &str| Some(text.parse::<Timestamp>().expect("a time"));
        let mut status = Status {
            id: "layer".into(),
            current: 1_048_576,
            total: 2_000_000,
            started: at("2024-01-01T00:00:00Z"),
            timestamp: at("2024-01-01T00:00:00.3Z"),
            ..Status::default()
        };
        assert_eq!(status.text(), "layer 1.05MB / 2.00MB 0.3s");
        status.completed = at("2024-01-01T00:00:01Z");
        assert_eq!(status.text(), "layer 1.05MB / 2.00MB 1.0s done");
        assert_eq!((bytes(999), bytes(1000)), ("999B".to_owned(), "1.00kB".to_owned()));
    }
}
