//! The JSON lines of pull, push, load and build. On a terminal each id keeps its line, which is written anew; in a
//! pipe only changes of state are lines. Both are Docker's (pkg/jsonmessage), byte for byte.

use std::collections::HashMap;
use std::io::{IsTerminal, stdout};

use hyper::body::Incoming;
use serde_json::Value;

use crate::engine::next_chunk;
use crate::failure::{Failure, Outcome};
use crate::{output, terminal, units};

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
    let on_terminal = match sink {
        Sink::Stdout => stdout().is_terminal(),
        Sink::Stderr => std::io::stderr().is_terminal(),
        Sink::Nowhere => false,
    };
    let mut screen = Screen { on_terminal, lines: HashMap::new(), last: String::new() };
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
                    if message["aux"].is_null() {
                        put(sink, &screen.message(&message)?);
                    } else {
                        on_aux(&message["aux"]);
                    }
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

fn put(sink: Sink, text: &str) {
    match sink {
        Sink::Stdout => output::write(text.as_bytes()),
        Sink::Stderr => output::error(text.as_bytes()),
        Sink::Nowhere => {}
    }
}

/// Width where the terminal does not say.
const USUAL_COLUMNS: u16 = 200;
/// Narrower terminals have no room for a bar.
const BAR_MIN_COLUMNS: u16 = 110;
const BAR_CELLS: usize = 50;

struct Screen {
    on_terminal: bool,
    /// The line of each id, counted from the first that is still written anew.
    lines: HashMap<String, usize>,
    last: String,
}

impl Screen {
    /// What is written for one message.
    fn message(&mut self, message: &Value) -> Outcome<String> {
        if let Some(error) = message["errorDetail"]["message"].as_str().or(message["error"].as_str()) {
            let code = message["errorDetail"]["code"].as_i64().unwrap_or(1);
            // A registry's 401 is no exit code.
            let code = if (1..=255).contains(&code) { code as i32 } else { 1 };
            return Err(Failure::new(error).code(code));
        }
        let id = message["id"].as_str().unwrap_or_default();
        let detail = &message["progressDetail"];
        let has_line = !id.is_empty() && !detail.is_null();
        let mut text = String::new();
        let mut below = 0;
        if has_line {
            let next = self.lines.len();
            let line = *self.lines.entry(id.to_owned()).or_insert(next);
            if self.on_terminal {
                if line == next {
                    text.push('\n');
                }
                below = self.lines.len() - line;
                text += &format!("\u{1b}[{below}A");
            }
        } else {
            // After other output the lines above are history.
            self.lines.clear();
        }
        text += &self.line(id, message);
        if below > 0 {
            text += &format!("\u{1b}[{below}B");
        }
        if let Some(said) = message["stream"].as_str() {
            said.clone_into(&mut self.last);
        }
        Ok(text)
    }

    fn line(&self, id: &str, message: &Value) -> String {
        let named = if id.is_empty() { String::new() } else { format!("{id}: ") };
        if let Some(said) = message["stream"].as_str().filter(|said| !said.is_empty()) {
            return format!("{named}{said}");
        }
        let status = message["status"].as_str().unwrap_or_default();
        let detail = &message["progressDetail"];
        if detail.is_null() {
            return format!("{named}{status}\n");
        }
        let columns = terminal::size().map_or(USUAL_COLUMNS, |(_, columns)| columns);
        let bar = bar(detail, columns);
        match (self.on_terminal, bar.is_empty()) {
            (true, _) => format!("\u{1b}[2K\r{named}{status} {bar}\r"),
            (false, true) => format!("{named}{status}\n"),
            (false, false) => String::new(),
        }
    }
}

/// A bar with its counts, `[==>  ]  1.2MB/4MB`; empty where nothing is counted.
fn bar(detail: &Value, columns: u16) -> String {
    let number = |name: &str| detail[name].as_i64().unwrap_or(0);
    let (current, total) = (number("current"), number("total"));
    let size = |bytes: i64| units::size(bytes as f64);
    if current <= 0 && total <= 0 {
        return String::new();
    }
    if total <= 0 {
        return format!("{:>8}", size(current));
    }
    let filled = ((current as f64 / total as f64 * 100.0) as usize / 2).min(BAR_CELLS);
    let cells = match columns > BAR_MIN_COLUMNS {
        true => format!("[{}>{}] ", "=".repeat(filled), " ".repeat(BAR_CELLS - filled)),
        false => String::new(),
    };
    let counts = match current > total {
        true => format!("{:>8}", size(current)),
        false => format!("{:>8}/{}", size(current), size(total)),
    };
    cells + &counts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn screen(on_terminal: bool) -> Screen {
        Screen { on_terminal, lines: HashMap::new(), last: String::new() }
    }

    #[test]
    fn lines_in_a_pipe() {
        let mut screen = screen(false);
        for (message, expected) in [
            (json!({"status": "Pulling from library/x", "id": "latest"}), "latest: Pulling from library/x\n"),
            (json!({"status": "Pulling fs layer", "progressDetail": {}, "id": "a"}), "a: Pulling fs layer\n"),
            (json!({"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "id": "a"}), ""),
            (json!({"status": "Digest: sha256:1"}), "Digest: sha256:1\n"),
            (json!({"stream": "Step 1\n"}), "Step 1\n"),
        ] {
            assert_eq!(screen.message(&message).expect("no error"), expected);
        }
        assert_eq!(screen.last, "Step 1\n");
        let error = screen.message(&json!({"errorDetail": {"message": "no"}, "error": "no"})).expect_err("an error");
        assert_eq!((error.message.as_str(), error.code), ("no", 1));
    }

    #[test]
    fn lines_on_a_terminal() {
        let mut screen = screen(true);
        for (message, expected) in [
            (json!({"status": "x", "id": "latest"}), "latest: x\n"),
            (json!({"status": "w", "progressDetail": {}, "id": "a"}), "\n\u{1b}[1A\u{1b}[2K\ra: w \r\u{1b}[1B"),
            (json!({"status": "w", "progressDetail": {}, "id": "b"}), "\n\u{1b}[1A\u{1b}[2K\rb: w \r\u{1b}[1B"),
            (json!({"status": "d", "progressDetail": {}, "id": "a"}), "\u{1b}[2A\u{1b}[2K\ra: d \r\u{1b}[2B"),
            (json!({"status": "Digest"}), "Digest\n"),
            (json!({"status": "w", "progressDetail": {}, "id": "b"}), "\n\u{1b}[1A\u{1b}[2K\rb: w \r\u{1b}[1B"),
        ] {
            assert_eq!(screen.message(&message).expect("no error"), expected);
        }
    }

    #[test]
    fn bars() {
        let shown = |current: i64, total: i64, columns| bar(&json!({"current": current, "total": total}), columns);
        assert_eq!(shown(0, 0, 200), "");
        assert_eq!(shown(2048, 0, 200), " 2.048kB");
        assert_eq!(shown(500, 1000, 80), "    500B/1kB");
        assert_eq!(shown(500, 1000, 200), format!("[{}>{}]     500B/1kB", "=".repeat(25), " ".repeat(25)));
        assert_eq!(shown(3000, 1000, 80), "     3kB");
    }
}
