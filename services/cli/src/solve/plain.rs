//! `--progress=plain`: each step with its number, as BuildKit's text output.

use std::time::{Duration, Instant};

use super::status::{Solve, Vertex};

/// A step that is silent for so long gives way to one that has something to say.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Plain {
    /// The step whose lines are told.
    current: Option<usize>,
    last_word: Option<Instant>,
    /// Steps that have something to say, in order.
    waiting: Vec<usize>,
    numbers: usize,
    has_told: bool,
    out: String,
}

impl Plain {
    /// The text for steps of which something new is known.
    pub fn show(&mut self, solve: &mut Solve, touched: &[usize]) -> String {
        for at in touched {
            if !self.waiting.contains(at) {
                self.waiting.push(*at);
            }
        }
        self.tick(solve)
    }

    /// The text for a step that may have its turn by now.
    pub fn tick(&mut self, solve: &mut Solve) -> String {
        self.tell_waiting(solve);
        std::mem::take(&mut self.out)
    }

    /// The text for everything that is left, whoever it is of.
    pub fn finish(&mut self, solve: &mut Solve) -> String {
        self.tell_waiting(solve);
        while let Some(at) = self.waiting.first().copied() {
            self.waiting.remove(0);
            self.tell(solve, at);
        }
        std::mem::take(&mut self.out)
    }

    fn tell_waiting(&mut self, solve: &mut Solve) {
        loop {
            let holds = self.current.filter(|_| self.last_word.is_some_and(|last| last.elapsed() < SILENCE));
            let next = match holds.or(self.current.filter(|at| self.waiting.contains(at))) {
                Some(current) => self.waiting.iter().position(|at| *at == current),
                // One that has not begun says nothing yet.
                None => self.waiting.iter().position(|at| has_begun(&solve.vertices[*at])),
            };
            let Some(next) = next else { return };
            let at = self.waiting.remove(next);
            self.tell(solve, at);
        }
    }

    fn tell(&mut self, solve: &mut Solve, at: usize) {
        if !has_begun(&solve.vertices[at]) || solve.vertices[at].is_told && nothing_new(&solve.vertices[at]) {
            return;
        }
        self.turn_to(solve, at);
        let vertex = &mut solve.vertices[at];
        let number = vertex.number;
        for status in &mut vertex.statuses {
            if std::mem::take(&mut status.changed) {
                self.out.push_str(&format!("#{number} {}\n", status.text()));
            }
        }
        for warning in &vertex.warnings[vertex.told_warnings..] {
            self.out.push_str(&format!("#{number} WARN: {warning}\n"));
        }
        vertex.told_warnings = vertex.warnings.len();
        for line in vertex.untold.drain(..) {
            self.out.push_str(&format!("#{number} {line}\n"));
        }
        self.last_word = Some(Instant::now());
        if vertex.completed.is_none() || std::mem::replace(&mut vertex.is_told, true) {
            return;
        }
        self.current = None;
        self.out.push_str(&format!("#{number} {}\n", ending(vertex)));
    }

    fn turn_to(&mut self, solve: &mut Solve, at: usize) {
        if self.current == Some(at) {
            return;
        }
        if let Some(old) = self.current {
            self.out.push_str(&format!("#{} ...\n", solve.vertices[old].number));
        }
        if std::mem::replace(&mut self.has_told, true) {
            self.out.push('\n');
        }
        let vertex = &mut solve.vertices[at];
        if vertex.number == 0 {
            self.numbers += 1;
            vertex.number = self.numbers;
        }
        self.out.push_str(&format!("#{} {}\n", vertex.number, vertex.name));
        self.current = Some(at);
    }
}

fn has_begun(vertex: &Vertex) -> bool {
    vertex.started.is_some() || vertex.completed.is_some() || !vertex.untold.is_empty() || !vertex.statuses.is_empty()
}

fn nothing_new(vertex: &Vertex) -> bool {
    vertex.untold.is_empty()
        && vertex.told_warnings == vertex.warnings.len()
        && !vertex.statuses.iter().any(|status| status.changed)
}

fn ending(vertex: &Vertex) -> String {
    if vertex.error.ends_with("context canceled") {
        "CANCELED".to_owned()
    } else if !vertex.error.is_empty() {
        format!("ERROR: {}", vertex.error)
    } else if vertex.cached {
        "CACHED".to_owned()
    } else {
        format!("DONE {:.1}s", vertex.seconds())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_take_turns() {
        let (mut solve, mut plain) = (Solve::default(), Plain::default());
        let mut told = |update: serde_json::Value, solve: &mut Solve| {
            let touched = solve.update(&update).expect("taken");
            plain.show(solve, &touched)
        };
        let (start, end) = ("2024-01-01T00:00:00Z", "2024-01-01T00:00:02Z");
        let log = |vertex: &str| json!({"vertex": vertex, "data": STANDARD.encode("hi\n"), "timestamp": end});
        let first = json!({"vertexes": [
            {"digest": "a", "name": "[1/2] FROM x", "started": start},
            {"digest": "b", "name": "[2/2] RUN y", "started": start},
            {"digest": "c", "name": "later"},
        ], "logs": [log("a")]});
        assert_eq!(told(first, &mut solve), "#1 [1/2] FROM x\n#1 2.000 hi\n");
        assert_eq!(told(json!({"logs": [log("b")]}), &mut solve), "", "the first has not ended");
        let ended = json!({"vertexes": [{"digest": "a", "name": "[1/2] FROM x", "started": start, "completed": end}]});
        assert_eq!(told(ended, &mut solve), "#1 DONE 2.0s\n\n#2 [2/2] RUN y\n#2 2.000 hi\n");
        let failed = json!({"vertexes": [
            {"digest": "b", "name": "[2/2] RUN y", "completed": end, "error": "exit code: 1"},
            {"digest": "c", "name": "later", "completed": end, "cached": true},
        ]});
        assert_eq!(told(failed, &mut solve), "#2 ERROR: exit code: 1\n\n#3 later\n#3 CACHED\n");
    }
}
