//! `--progress=tty`: all steps on a terminal, drawn over what was drawn before.

use std::io::Write as _;

use super::status::{Solve, Vertex};
use crate::terminal;

/// Lines of output of a running step that are shown.
const OUTPUT_LINES: usize = 6;
const NARROWEST: usize = 30;

#[derive(Default)]
pub struct Tree {
    /// Lines that the next drawing overwrites.
    drawn: usize,
    notes: Vec<String>,
}

impl Tree {
    pub fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    /// The last drawing stays, whole; one before is cut to the terminal's height.
    pub fn draw(&mut self, solve: &Solve, is_last: bool) {
        let (rows, columns) = terminal::size().unwrap_or((24, 80));
        let width = usize::from(columns).max(NARROWEST) - 1;
        let mut lines = lines(solve, width, is_last);
        if !is_last {
            lines = fit(lines, usize::from(rows).saturating_sub(2).max(3));
        }
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        out.push_str("\x1b[?25l\x1b[J");
        for note in self.notes.drain(..) {
            out.push_str(&format!("{note}\n"));
        }
        for line in &lines {
            out.push_str(line);
            out.push('\n');
        }
        if is_last {
            out.push_str("\x1b[?25h");
        }
        self.drawn = if is_last { 0 } else { lines.len() };
        let _ = std::io::stderr().lock().write_all(out.as_bytes());
    }
}

impl Drop for Tree {
    /// The cursor is shown again, however the build ends.
    fn drop(&mut self) {
        let _ = std::io::stderr().lock().write_all(b"\x1b[?25h");
    }
}

fn lines(solve: &Solve, width: usize, is_last: bool) -> Vec<String> {
    let told: Vec<&Vertex> = solve.vertices.iter().filter(|v| v.started.is_some() || v.completed.is_some()).collect();
    let since = solve.started.map_or(0.0, |at| jiff::Timestamp::now().duration_since(at).as_secs_f64());
    let state = if is_last && solve.completed() >= told.len() { " FINISHED" } else { "" };
    let head = format!("[+] Building {since:.1}s ({}/{}){state}", solve.completed(), solve.vertices.len());
    let mut lines = vec![head];
    for vertex in told {
        lines.push(step(vertex, width));
        if vertex.completed.is_some() && vertex.error.is_empty() {
            continue;
        }
        for status in &vertex.statuses {
            lines.push(coloured(vertex, &cut(&format!(" => => {}", status.text()), width)));
        }
        if vertex.is_running() {
            let from = vertex.kept.len().saturating_sub(OUTPUT_LINES);
            lines.extend(vertex.kept[from..].iter().map(|line| {
                let text = line.split_once(' ').map_or("", |(_, text)| text);
                format!("\x1b[2m{}\x1b[0m", cut(&format!(" => => # {}", visible(text)), width))
            }));
        }
    }
    lines
}

/// ` => CACHED [2/3] RUN make        @worker   1.2s`
fn step(vertex: &Vertex, width: usize) -> String {
    let state = match (vertex.error.as_str(), vertex.cached) {
        ("", true) => "CACHED ",
        ("", false) => "",
        (error, _) if error.ends_with("context canceled") => "CANCELED ",
        _ => "ERROR ",
    };
    let worker = if vertex.worker.is_empty() { String::new() } else { format!(" @{}", vertex.worker) };
    let right = format!("{worker} {:>6}", format!("{:.1}s", vertex.seconds()));
    let room = width.saturating_sub(right.chars().count());
    let left = cut(&format!(" => {state}{}", visible(&vertex.name)), room);
    let gap = " ".repeat(room.saturating_sub(left.chars().count()));
    coloured(vertex, &format!("{left}{gap}{right}"))
}

fn coloured(vertex: &Vertex, text: &str) -> String {
    let colour = match (vertex.error.is_empty(), vertex.completed.is_some()) {
        (false, _) => "31",
        (true, true) => "34",
        (true, false) => "0",
    };
    format!("\x1b[{colour}m{text}\x1b[0m")
}

/// Without what would move the cursor.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// Keeps the head and the last lines: there is what goes on.
fn fit(mut lines: Vec<String>, rows: usize) -> Vec<String> {
    if lines.len() > rows {
        let surplus = lines.len() - rows;
        lines.drain(1..=surplus);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_for_each_step() {
        let mut solve = Solve::default();
        let (start, end) = ("2024-01-01T00:00:00Z", "2024-01-01T00:00:02Z");
        solve
            .update(&json!({"vertexes": [
                {"digest": "a", "name": "[1/2] FROM x", "started": start, "completed": end, "cached": true},
                {"digest": "b", "name": "[2/2] RUN \u{1b}[2Jy", "started": start, "completed": end, "error": "no", "worker": "w1"},
                {"digest": "c", "name": "not begun"},
            ]}))
            .expect("taken");
        let lines = lines(&solve, 40, true);
        assert!(lines[0].ends_with(" (2/3) FINISHED"), "{}", lines[0]);
        assert_eq!(lines[1], "\x1b[34m => CACHED [1/2] FROM x             2.0s\x1b[0m");
        assert_eq!(lines[2], "\x1b[31m => ERROR [2/2] RUN [2Jy      @w1   2.0s\x1b[0m");
        assert_eq!(lines.len(), 3);
        assert_eq!(fit(vec!["0".into(), "1".into(), "2".into(), "3".into()], 3), ["0", "2", "3"]);
    }
}
