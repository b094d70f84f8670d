//! The lines of a pull or a push, as every client that waits for it reads them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;

use super::{Failure, Outcome, lock};

/// Written by one task, read by any number of clients from its first line on. How far a layer is counts only as the
/// newest line says it, so what is kept is bounded by the layers, and a slow client misses nothing but counters.
pub struct Lines {
    told: Mutex<Told>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Told {
    lines: VecDeque<Line>,
    next: u64,
    ended: Option<Result<(), Failure>>,
}

struct Line {
    number: u64,
    /// What it counts, for the next line of the same to take its place.
    counts: Option<(String, String)>,
    json: Value,
}

impl Lines {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { told: Mutex::default(), newest: watch::channel(0).0 })
    }

    pub fn message(&self, id: &str, text: &str) {
        self.push(None, engine_api::message(id, text));
    }

    pub fn aux(&self, value: &Value) {
        self.push(None, engine_api::aux(value));
    }

    pub fn progress(&self, step: &proto::Progress) {
        let counts = step.current > 0 || step.total > 0;
        let counts = counts.then(|| (step.id.clone(), step.status.clone()));
        self.push(counts, engine_api::progress(&step.id, &step.status, step.current, step.total));
    }

    /// The last word; what is told after it is not heard.
    pub fn end(&self, outcome: Outcome<()>) {
        let mut told = lock(&self.told);
        told.ended.get_or_insert(outcome);
        self.wake(&mut told);
    }

    /// Whether the last word was said.
    pub fn is_over(&self) -> bool {
        lock(&self.told).ended.is_some()
    }

    fn push(&self, counts: Option<(String, String)>, json: Value) {
        let mut told = lock(&self.told);
        if counts.is_some() {
            told.lines.retain(|line| line.counts != counts);
        }
        let number = told.next;
        told.lines.push_back(Line { number, counts, json });
        self.wake(&mut told);
    }

    fn wake(&self, told: &mut Told) {
        told.next += 1;
        self.newest.send_replace(told.next);
    }

    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader {
            newest: self.newest.subscribe(),
            lines: self.clone(),
            seen: 0,
            ready: VecDeque::new(),
            failure: None,
            over: false,
        }
    }
}

/// One client's place in [`Lines`].
pub struct Reader {
    lines: Arc<Lines>,
    newest: watch::Receiver<u64>,
    seen: u64,
    ready: VecDeque<Value>,
    /// The last word, told after the lines before it.
    failure: Option<Failure>,
    over: bool,
}

impl Reader {
    /// The next line; a failure is the last one; nothing after the end.
    pub async fn next(&mut self) -> Option<Outcome<Value>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.over {
                return self.failure.take().map(Err);
            }
            self.newest.borrow_and_update();
            self.read();
            if self.ready.is_empty() && !self.over && self.newest.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Takes what is new, and notes the end.
    fn read(&mut self) {
        let told = lock(&self.lines.told);
        let new = told.lines.partition_point(|line| line.number < self.seen);
        self.ready.extend(told.lines.range(new..).map(|line| line.json.clone()));
        self.seen = told.next;
        if let Some(ended) = &told.ended {
            self.over = true;
            self.failure = ended.as_ref().err().cloned();
        }
    }
}

/// A client's place in the lines of some work, and what keeps that work going.
pub struct Held<T> {
    reader: Reader,
    _work: T,
}

impl<T> Held<T> {
    pub fn new(reader: Reader, work: T) -> Self {
        Self { reader, _work: work }
    }

    /// The next line for the client; a failure is the last one.
    pub async fn next(&mut self) -> Option<Outcome<Value>> {
        self.reader.next().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, status: &str, current: i64) -> proto::Progress {
        let (id, status) = (id.to_owned(), status.to_owned());
        proto::Progress { id, status, current, total: if current > 0 { 10 } else { 0 }, ..Default::default() }
    }

    async fn all(mut reader: Reader) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(line) = reader.next().await {
            seen.push(match line {
                Ok(line) => format!("{} {}", line["status"].as_str().unwrap_or("-"), line["progressDetail"]["current"]),
                Err(failure) => failure.message,
            });
        }
        seen
    }

    #[tokio::test]
    async fn a_late_reader_gets_all_but_counters_that_were_overtaken() {
        let lines = Lines::new();
        let early = tokio::spawn(all(lines.reader()));
        for line in [step("a", "Waiting", 0), step("a", "Downloading", 1), step("b", "Downloading", 2)] {
            lines.progress(&line);
        }
        lines.progress(&step("a", "Downloading", 9));
        lines.message("", "Digest: x");
        lines.end(Err(Failure::invalid("broke off")));
        lines.end(Ok(()));
        let wanted = ["Waiting null", "Downloading 2", "Downloading 9", "Digest: x null", "broke off"];
        assert_eq!(all(lines.reader()).await, wanted);
        let early = early.await.expect("reads");
        assert_eq!(early.first().map(String::as_str), Some("Waiting null"));
        assert_eq!(early.last().map(String::as_str), Some("broke off"));
    }

    #[tokio::test]
    async fn a_reader_ends_with_its_lines() {
        let lines = Lines::new();
        lines.message("", "one");
        lines.end(Ok(()));
        assert_eq!(all(lines.reader()).await, ["one null"]);
    }
}
