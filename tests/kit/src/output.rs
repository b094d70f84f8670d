//! What a command printed and how it ended, with the checks that tests make on it.

use std::fmt;

/// The whole output of one finished command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The command line as typed, for messages.
    pub command: String,
    pub stdout: String,
    pub stderr: String,
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
}

impl Output {
    /// Panics with everything the command printed unless it exited with 0; returns its stdout without the last newline.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.code == 0, "expected success\n{self}");
        self.stdout.trim_end_matches('\n')
    }

    /// Panics unless it exited with this code and printed this text to stderr or stdout.
    #[track_caller]
    pub fn fails(&self, code: i32, text: &str) -> &Self {
        assert!(self.code == code, "expected exit code {code}\n{self}");
        assert!(self.stderr.contains(text) || self.stdout.contains(text), "expected the text {text:?}\n{self}");
        self
    }

    /// Panics unless it succeeded and its stdout holds this text.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        self.ok();
        assert!(self.stdout.contains(text), "expected {text:?} on stdout\n{self}");
        self
    }

    /// Panics unless it succeeded and its stdout does not hold this text.
    #[track_caller]
    pub fn hides(&self, text: &str) -> &Self {
        self.ok();
        assert!(!self.stdout.contains(text), "did not expect {text:?} on stdout\n{self}");
        self
    }

    /// Stdout by lines.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "$ {}\nexit code {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }
}
