//! Steps as plain lines, in the form of BuildKit's clients: each step has a number, its lines carry it and their time.

use std::collections::HashMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::list::seconds;

#[derive(Default)]
pub struct Plain {
    steps: HashMap<String, Step>,
    /// The step that was told of last.
    current: usize,
}

#[derive(Default)]
struct Step {
    number: usize,
    started_ms: i64,
    is_over: bool,
    /// What it printed without a line's end yet.
    rest: String,
}

impl Plain {
    /// The text for what a trace tells anew.
    pub fn show(&mut self, trace: &Value) -> String {
        let list = |name: &str| trace[name].as_array().into_iter().flatten();
        let mut text = String::new();
        for vertex in list("vertexes") {
            self.begin(vertex, &mut text);
        }
        for status in list("statuses") {
            self.status(status, &mut text);
        }
        for line in list("logs") {
            self.output(line, &mut text);
        }
        for vertex in list("vertexes") {
            self.end(vertex, &mut text);
        }
        for warning in list("warnings") {
            let short = decoded(&warning["short"]);
            let _ = writeln!(text, "\nWARNING: {}", String::from_utf8_lossy(&short));
        }
        text
    }

    fn begin(&mut self, vertex: &Value, text: &mut String) {
        let Some(started_ms) = millis(&vertex["started"]) else { return };
        let (digest, number) = (digest_of(vertex), self.steps.len() + 1);
        if self.steps.contains_key(digest) {
            return;
        }
        self.steps.insert(digest.to_owned(), Step { number, started_ms, ..Step::default() });
        self.turn_to(number, text);
        let _ = writeln!(text, "#{number} {}", vertex["name"].as_str().unwrap_or_default());
    }

    fn status(&mut self, status: &Value, text: &mut String) {
        let Some(step) = self.steps.get(status["vertex"].as_str().unwrap_or_default()) else { return };
        if status["completed"].is_null() {
            return;
        }
        let number = step.number;
        self.turn_to(number, text);
        let _ = writeln!(text, "#{number} {} done", status["id"].as_str().unwrap_or_default());
    }

    fn output(&mut self, line: &Value, text: &mut String) {
        let Some(step) = self.steps.get_mut(line["vertex"].as_str().unwrap_or_default()) else { return };
        let passed = millis(&line["timestamp"]).map_or(0, |at| (at - step.started_ms).max(0)) as f64 / 1000.0;
        step.rest.push_str(&String::from_utf8_lossy(&decoded(&line["data"])));
        let whole = step.rest.rfind('\n').map_or(0, |at| at + 1);
        let lines: String = step.rest.drain(..whole).collect();
        let number = step.number;
        for line in lines.lines() {
            self.turn_to(number, text);
            let _ = writeln!(text, "#{number} {passed:.3} {line}");
        }
    }

    fn end(&mut self, vertex: &Value, text: &mut String) {
        let Some(completed_ms) = millis(&vertex["completed"]) else { return };
        let Some(step) = self.steps.get_mut(digest_of(vertex)).filter(|step| !step.is_over) else { return };
        step.is_over = true;
        let (number, rest) = (step.number, std::mem::take(&mut step.rest));
        let lasted = (completed_ms - step.started_ms).max(0) as f64 / 1000.0;
        self.turn_to(number, text);
        if !rest.is_empty() {
            let _ = writeln!(text, "#{number} {rest}");
        }
        let _ = match (vertex["error"].as_str(), vertex["cached"] == true) {
            (Some(error), _) => writeln!(text, "#{number} ERROR: {error}"),
            (None, true) => writeln!(text, "#{number} CACHED"),
            (None, false) => writeln!(text, "#{number} DONE {}", seconds(lasted)),
        };
    }

    /// An empty line stands between the lines of two steps.
    fn turn_to(&mut self, number: usize, text: &mut String) {
        if self.current != 0 && self.current != number {
            text.push('\n');
        }
        self.current = number;
    }
}

fn digest_of(vertex: &Value) -> &str {
    vertex["digest"].as_str().unwrap_or_default()
}

fn decoded(data: &Value) -> Vec<u8> {
    STANDARD.decode(data.as_str().unwrap_or_default()).unwrap_or_default()
}

fn millis(time: &Value) -> Option<i64> {
    time.as_str()?.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_as_lines() {
        let at = |ms: u32| format!("2026-01-01T00:00:00.{ms:03}Z");
        let mut plain = Plain::default();
        let mut text = String::new();
        for trace in [
            json!({"vertexes": [{"digest": "a", "name": "[1/2] FROM x"}]}),
            json!({"vertexes": [{"digest": "a", "name": "[1/2] FROM x", "started": at(0), "completed": at(1), "cached": true}]}),
            json!({"vertexes": [{"digest": "b", "name": "[2/2] RUN y", "started": at(100)}],
                   "logs": [{"vertex": "b", "stream": 1, "data": STANDARD.encode("one\ntw"), "timestamp": at(350)}]}),
            json!({"logs": [{"vertex": "b", "stream": 1, "data": STANDARD.encode("o\n"), "timestamp": at(400)}]}),
            json!({"vertexes": [{"digest": "b", "name": "[2/2] RUN y", "started": at(100), "completed": at(600), "error": "exit code: 1"}]}),
        ] {
            text += &plain.show(&trace);
        }
        assert_eq!(
            text,
            "#1 [1/2] FROM x\n#1 CACHED\n\n#2 [2/2] RUN y\n#2 0.250 one\n#2 0.300 two\n#2 ERROR: exit code: 1\n"
        );
    }
}
