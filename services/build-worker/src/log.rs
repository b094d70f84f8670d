//! The output of a build, as numbered chunks on its subject; stages that run at once each have a part of it, and the
//! parts are told in the order of the stages.

use std::collections::HashMap;
use std::sync::Arc;

use bus::Bus;
use proto::build_log::What;
use tokio::sync::Mutex;

use crate::flight::Flight;

/// A chunk carries at most this much text.
const CHUNK_BYTES: usize = 64 * 1024;
/// What one build may write in all; after it, output is left out.
const BUILD_BYTES: usize = 64 << 20;
const CLIPPED: &str = "\n[output clipped, the log of a build ends at 64 MiB]\n";
/// What a quiet build keeps for the case that it fails.
const QUIET_BYTES: usize = 1 << 20;

/// Writes a build's output, or a part of it.
pub struct Log {
    chunks: Arc<Chunks>,
    state: Mutex<Part>,
}

#[derive(Default)]
struct Part {
    /// What it says before its turn has come; `None`: it is told at once.
    waiting: Option<Waiting>,
    /// The step that runs for others too.
    flight: Option<Arc<Flight>>,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Line>,
    bytes: usize,
    /// Where the flight's lines begin.
    flight_at: usize,
}

enum Line {
    Stream(String),
    Status(String),
}

impl Log {
    pub fn new(bus: Bus, build_id: &str, attempt: u32, quiet: bool) -> Self {
        let state = State { number: 0, bytes: 0, kept: quiet.then(String::new), fault: None };
        let chunks = Chunks { bus, build_id: build_id.to_owned(), attempt, state: Mutex::new(state) };
        Self { chunks: Arc::new(chunks), state: Mutex::default() }
    }

    /// A part that keeps what it says until its turn.
    pub fn part(&self) -> Self {
        let state = Part { waiting: Some(Waiting::default()), flight: None };
        Self { chunks: self.chunks.clone(), state: Mutex::new(state) }
    }

    /// It is this part's turn: tells what was kept, and from now on everything at once.
    pub async fn go_on(&self) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        for line in state.waiting.take().unwrap_or_default().lines {
            match line {
                Line::Stream(text) => self.chunks.stream(&text).await?,
                Line::Status(json) => self.chunks.status(&json).await?,
            }
        }
        Ok(())
    }

    /// What is said from now on goes to those who follow the step, too.
    pub async fn lend(&self, flight: Arc<Flight>) {
        let mut state = self.state.lock().await;
        if let Some(waiting) = &mut state.waiting {
            waiting.flight_at = waiting.lines.len();
        }
        state.flight = Some(flight);
    }

    /// The step has said all. Where its output was moved to an earlier stage of the build, this one found it.
    pub async fn take_back(&self, instead: &str) {
        let mut state = self.state.lock().await;
        let Part { waiting, flight } = &mut *state;
        if let (Some(waiting), Some(flight)) = (waiting, flight.take())
            && flight.output_moved()
        {
            waiting.lines.truncate(waiting.flight_at);
            waiting.add(Line::Stream(instead.to_owned()), instead.len());
        }
    }

    /// Text as the client prints it.
    pub async fn stream(&self, text: &str) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        if let Some(flight) = &state.flight {
            flight.say(text);
        }
        match &mut state.waiting {
            None => self.chunks.stream(text).await,
            Some(waiting) => {
                waiting.add(Line::Stream(text.to_owned()), text.len());
                Ok(())
            }
        }
    }

    /// A line of a pull, as the client gets it.
    pub async fn status(&self, json: &str) -> Result<(), bus::Error> {
        match &mut self.state.lock().await.waiting {
            None => self.chunks.status(json).await,
            Some(waiting) => {
                waiting.add(Line::Status(json.to_owned()), json.len());
                Ok(())
            }
        }
    }

    /// What is told of steps, at once; output past what one build may write is left out.
    pub async fn trace(&self, trace: proto::BuildTrace) -> Result<(), bus::Error> {
        self.chunks.trace(trace).await
    }

    /// The one line that a quiet build prints.
    pub async fn answer(&self, text: &str) -> Result<(), bus::Error> {
        self.chunks.answer(text).await
    }

    /// Id of an image, for programs.
    pub async fn aux(&self, image_id: &str) -> Result<(), bus::Error> {
        self.chunks.aux(image_id).await
    }

    /// Says where the failure came from that will be told.
    pub async fn point_at(&self, fault: proto::BuildFault) {
        self.chunks.state.lock().await.fault = Some(fault);
    }

    /// The last chunk of a failed build.
    pub async fn error(&self, message: &str, code: i32) -> Result<(), bus::Error> {
        self.chunks.error(message, code).await
    }

    /// The last chunk of a successful build, with what its exporters answered, and what was built.
    pub async fn end(
        &self,
        response: HashMap<String, String>,
        results: Vec<proto::BuiltImage>,
    ) -> Result<(), bus::Error> {
        self.chunks.end(response, results).await
    }
}

impl Waiting {
    /// A part keeps what a build may write in all, and the line that passes it, where the build's end is told.
    fn add(&mut self, line: Line, bytes: usize) {
        if self.bytes <= BUILD_BYTES {
            self.bytes += bytes;
            self.lines.push(line);
        }
    }
}

/// Chunks are numbered without gaps within an attempt.
struct Chunks {
    bus: Bus,
    build_id: String,
    attempt: u32,
    state: Mutex<State>,
}

struct State {
    number: u64,
    bytes: usize,
    /// `--quiet`: text is kept here, and only shown when the build fails.
    kept: Option<String>,
    /// Where the build failed.
    fault: Option<proto::BuildFault>,
}

impl Chunks {
    async fn stream(&self, text: &str) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        if let Some(kept) = &mut state.kept {
            if kept.len() + text.len() <= QUIET_BYTES {
                kept.push_str(text);
            }
            return Ok(());
        }
        self.text(&mut state, text).await
    }

    async fn answer(&self, text: &str) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        state.kept = None;
        self.text(&mut state, text).await
    }

    async fn status(&self, json: &str) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        if state.kept.is_some() || state.bytes > BUILD_BYTES {
            return Ok(());
        }
        state.bytes += json.len();
        self.chunk(&mut state, What::StatusJson(json.to_owned())).await
    }

    async fn trace(&self, mut trace: proto::BuildTrace) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        if state.bytes > BUILD_BYTES {
            trace.lines.clear();
        }
        let told = state.bytes;
        state.bytes += trace.lines.iter().map(|line| line.text.len()).sum::<usize>();
        if told <= BUILD_BYTES
            && state.bytes > BUILD_BYTES
            && let Some(last) = trace.lines.last_mut()
        {
            last.text = CLIPPED.as_bytes().to_vec();
        }
        self.chunk(&mut state, What::Trace(trace)).await
    }

    async fn aux(&self, image_id: &str) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        if state.kept.is_some() {
            return Ok(());
        }
        self.chunk(&mut state, What::AuxId(image_id.to_owned())).await
    }

    async fn error(&self, message: &str, code: i32) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        if let Some(kept) = state.kept.take() {
            self.text(&mut state, &kept).await?;
        }
        let (what, fault) = (Some(What::Error(message.to_owned())), state.fault.take());
        self.publish(&mut state, proto::BuildLog { what, error_code: code, fault, ..Default::default() }).await
    }

    async fn end(&self, response: HashMap<String, String>, results: Vec<proto::BuiltImage>) -> Result<(), bus::Error> {
        let mut state = self.state.lock().await;
        let what = Some(What::End(true));
        self.publish(&mut state, proto::BuildLog { what, response, results, ..Default::default() }).await
    }

    async fn text(&self, state: &mut State, text: &str) -> Result<(), bus::Error> {
        if state.bytes > BUILD_BYTES {
            return Ok(());
        }
        state.bytes += text.len();
        let clipped = state.bytes > BUILD_BYTES;
        let text = if clipped { CLIPPED } else { text };
        for part in parts(text) {
            self.chunk(state, What::Stream(part.to_owned())).await?;
        }
        Ok(())
    }

    async fn chunk(&self, state: &mut State, what: What) -> Result<(), bus::Error> {
        self.publish(state, proto::BuildLog { what: Some(what), ..Default::default() }).await
    }

    async fn publish(&self, state: &mut State, chunk: proto::BuildLog) -> Result<(), bus::Error> {
        let chunk = proto::BuildLog { attempt: self.attempt, number: state.number, ..chunk };
        state.number += 1;
        self.bus.publish_build_log(&self.build_id, &chunk).await
    }
}

/// Pieces of at most a chunk each, cut between characters.
pub fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (part, after) = rest.split_at(rest.floor_char_boundary(CHUNK_BYTES));
        rest = after;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_and_whole() {
        let text = "é".repeat(CHUNK_BYTES);
        let all: Vec<&str> = parts(&text).collect();
        assert!(all.len() >= 2 && all.iter().all(|part| part.len() <= CHUNK_BYTES));
        assert_eq!(all.concat(), text);
        assert_eq!(parts("").count(), 0);
    }
}
