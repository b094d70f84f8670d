//! The JSON lines of pull, load and build: bars on a terminal, plain lines in a pipe.

use std::collections::HashMap;
use std::io::{IsTerminal, stdout};

use hyper::body::Incoming;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::engine::next_chunk;
use crate::failure::{Failure, Outcome};
use crate::{output, units};

/// Where messages go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    Stdout,
    Stderr,
    Nowhere,
}

/// Prints every message, hands each `aux` to `on_aux`, and fails with the stream's error. Gives the last
/// text of a `stream` message.
pub async fn show(mut body: Incoming, sink: Sink, mut on_aux: impl FnMut(&Value)) -> Outcome<String> {
    let terminal = match sink {
        Sink::Stdout => stdout().is_terminal(),
        Sink::Stderr => std::io::stderr().is_terminal(),
        Sink::Nowhere => false,
    };
    let mut screen = Screen { sink, bars: terminal.then(Bars::new), last: String::new() };
    let mut pending = Vec::new();
    loop {
        let chunk = next_chunk(&mut body).await?;
        let ended = chunk.is_none();
        pending.extend_from_slice(chunk.as_deref().unwrap_or_default());
        let mut used = 0;
        let mut values = serde_json::Deserializer::from_slice(&pending).into_iter::<Value>();
        loop {
            match values.next() {
                Some(Ok(message)) => {
                    used = values.byte_offset();
                    screen.message(&message, &mut on_aux)?;
                }
                Some(Err(e)) if !e.is_eof() => {
                    return Err(Failure::new(format!("the daemon's progress is not JSON: {e}")));
                }
                _ => break,
            }
        }
        pending.drain(..used);
        if ended {
            return Ok(std::mem::take(&mut screen.last));
        }
    }
}

struct Screen {
    sink: Sink,
    bars: Option<Bars>,
    last: String,
}

struct Bars {
    all: MultiProgress,
    by_id: HashMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        Self { all, by_id: HashMap::new() }
    }

    fn update(&mut self, id: &str, status: &str, message: &Value) {
        let bar = self.by_id.entry(id.to_owned()).or_insert_with(|| self.all.add(ProgressBar::no_length()));
        let detail = &message["progressDetail"];
        let current = detail["current"].as_u64();
        let total = detail["total"].as_u64().filter(|t| *t > 0);
        let text = match (current, total) {
            (Some(current), Some(total)) => {
                let filled = (current.min(total) * 50 / total) as usize;
                let head = if filled < 50 { ">" } else { "" };
                let bar = format!("{}{head:<width$}", "=".repeat(filled), width = 50 - filled);
                format!("{id}: {status} [{bar}] {:>8}/{}", units::size(current as f64), units::size(total as f64))
            }
            (Some(current), None) => format!("{id}: {status} {}", units::size(current as f64)),
            _ => format!("{id}: {status}"),
        };
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        bar.set_message(text);
        bar.tick();
    }

    /// Leaves the last state of each on the screen.
    fn settle(&mut self) {
        for (_, bar) in self.by_id.drain() {
            bar.abandon();
        }
    }
}

impl Screen {
    fn message(&mut self, message: &Value, on_aux: &mut impl FnMut(&Value)) -> Outcome {
        if let Some(error) = message["errorDetail"]["message"].as_str().or(message["error"].as_str()) {
            self.settle();
            let code = message["errorDetail"]["code"].as_i64().unwrap_or(1);
            return Err(Failure::new(error).code(if code == 0 { 1 } else { code as i32 }));
        }
        if !message["aux"].is_null() {
            on_aux(&message["aux"]);
            return Ok(());
        }
        if let Some(text) = message["stream"].as_str() {
            self.settle();
            self.put(text);
            text.clone_into(&mut self.last);
            return Ok(());
        }
        let Some(status) = message["status"].as_str() else { return Ok(()) };
        let id = message["id"].as_str().filter(|i| !i.is_empty());
        match (id, &mut self.bars) {
            (Some(id), Some(bars)) => bars.update(id, status, message),
            // In a pipe only changes of state are lines, not every step of a bar.
            (Some(_), None) if message["progressDetail"]["current"].is_u64() => {}
            (Some(id), None) => self.put(&format!("{id}: {status}\n")),
            (None, _) => {
                self.settle();
                self.put(&format!("{status}\n"));
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.settle();
        }
    }

    fn put(&self, text: &str) {
        match self.sink {
            Sink::Stdout => output::write(text.as_bytes()),
            Sink::Stderr => output::error(text.as_bytes()),
            Sink::Nowhere => {}
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.settle();
    }
}
