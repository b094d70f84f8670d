//! Where in the Dockerfile a build failed, for clients that show its lines.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::Graph;
use crate::failure::Failure;

/// Lines after the failed ones that a client shows.
const AROUND: usize = 5;
/// A client reads it in the head of an answer.
const TEXT_BYTES: usize = 32 * 1024;

/// The Dockerfile, once it was read.
#[derive(Default)]
pub struct Text(OnceLock<(String, String)>);

impl Text {
    /// Keeps the file's name and content.
    pub fn keep(&self, name: &str, text: &str) {
        self.0.get_or_init(|| (name.to_owned(), text.to_owned()));
    }

    /// The file's content; empty before it was read.
    pub fn content(&self) -> &str {
        self.0.get().map_or("", |(_, text)| text)
    }

    /// The lines that an error is about, as BuildKit's answers tell them.
    pub fn location(&self, error: &Failure) -> Value {
        match error {
            Failure::Dockerfile { line, .. } => {
                dockerfile::location(*line, dockerfile::last_line(self.content(), *line))
            }
            _ => json!({}),
        }
    }
}

impl Graph {
    /// Where a failure of this build came from.
    pub fn fault(&self, error: &Failure) -> Option<proto::BuildFault> {
        let failed = self.trace.failed();
        let line = match (error, failed) {
            (Failure::Dockerfile { line, .. }, _) => *line,
            (_, Some(vertex)) => vertex.line as usize,
            (_, None) => 0,
        };
        let vertex = failed.map(|vertex| vertex.digest.clone()).unwrap_or_default();
        let (file, text) = self.dockerfile.0.get()?;
        Some(proto::BuildFault { vertex, file: file.clone(), ..lines(text, line) })
    }
}

/// The lines of the instruction at `line`, and the text that a client shows them in.
fn lines(text: &str, line: usize) -> proto::BuildFault {
    if line == 0 {
        return proto::BuildFault::default();
    }
    let last = dockerfile::last_line(text, line);
    let shown: Vec<&str> = text.split_inclusive('\n').take(last + AROUND).collect();
    let shown = if text.len() <= TEXT_BYTES { text.to_owned() } else { shown.concat() };
    let number = |line: usize| u32::try_from(line).unwrap_or(u32::MAX);
    proto::BuildFault {
        text: if shown.len() <= TEXT_BYTES { shown } else { String::new() },
        first_line: number(line),
        last_line: number(last),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_instruction_that_failed() {
        let text = "FROM a\n\nRUN one \\\n  two\nCMD x\n";
        let fault = lines(text, 3);
        assert_eq!((fault.first_line, fault.last_line, fault.text.as_str()), (3, 4, text));
        assert_eq!(lines(text, 0), proto::BuildFault::default());
        let broken = lines("FROM a\nNOPE\n", 2);
        assert_eq!((broken.first_line, broken.last_line), (2, 2));
    }

    #[test]
    fn of_a_long_file_only_what_a_client_shows_goes() {
        let long = format!("FROM a\nRUN one\n{}", "# more\n".repeat(10_000));
        let fault = lines(&long, 2);
        assert_eq!(fault.text.lines().count(), 2 + AROUND);
        assert_eq!(lines(&long, 9_000).text, "", "a client would have to have all that stands above");
    }
}
