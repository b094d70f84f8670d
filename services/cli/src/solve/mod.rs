//! A build's progress as BuildKit's clients show it: from its SolveStatus lines to text, a tree on a terminal, or the
//! lines themselves.

mod failed;
mod plain;
mod status;
mod tree;

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use plain::Plain;
use status::Solve;
use tree::Tree;

pub use failed::Excerpt;

/// `--progress`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// `tty` on a terminal, else `plain`.
    Auto,
    Tty,
    Plain,
    /// BuildKit's SolveStatus, a line each.
    Rawjson,
    Quiet,
}

enum Screen {
    Tree(Tree),
    Plain(Plain),
    Raw,
    Nothing,
}

/// A build's log as plain text, for whoever prints it.
#[derive(Default)]
pub struct Lines {
    solve: Solve,
    plain: Plain,
}

impl Lines {
    /// What a SolveStatus has to say.
    ///
    /// # Errors
    /// It is none.
    pub fn update(&mut self, trace: &Value) -> Outcome<String> {
        let touched = self.solve.update(trace)?;
        Ok(self.plain.show(&mut self.solve, &touched))
    }

    /// What another step has to say while one is silent.
    pub fn tick(&mut self) -> String {
        self.plain.tick(&mut self.solve)
    }

    /// What is left at the log's end.
    pub fn finish(&mut self) -> String {
        self.plain.finish(&mut self.solve)
    }
}

fn to_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Shows a build while it goes on.
pub struct Progress {
    solve: Solve,
    screen: Screen,
    /// The line of the Dockerfile where the build failed.
    failed_at: Option<usize>,
}

impl Progress {
    pub fn new(mode: Mode) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let screen = match mode {
            Mode::Tty | Mode::Auto if is_terminal => Screen::Tree(Tree::default()),
            Mode::Tty | Mode::Auto | Mode::Plain => Screen::Plain(Plain::default()),
            Mode::Rawjson => Screen::Raw,
            Mode::Quiet => Screen::Nothing,
        };
        Self { solve: Solve::default(), screen, failed_at: None }
    }

    /// Takes a SolveStatus in.
    ///
    /// # Errors
    /// It is none.
    pub fn update(&mut self, trace: &Value) -> Outcome {
        if matches!(self.screen, Screen::Raw) {
            eprintln!("{trace}");
        }
        let touched = self.solve.update(trace)?;
        if let Screen::Plain(plain) = &mut self.screen {
            to_stderr(&plain.show(&mut self.solve, &touched));
        }
        Ok(())
    }

    /// A word that belongs to no step.
    pub fn note(&mut self, text: &str) {
        match &mut self.screen {
            Screen::Tree(tree) => tree.note(text),
            Screen::Plain(_) => eprintln!("{text}"),
            Screen::Raw | Screen::Nothing => {}
        }
    }

    /// Time goes on: a terminal is drawn anew, and plain text goes to a step that says something.
    pub fn tick(&mut self) {
        match &mut self.screen {
            Screen::Tree(tree) => tree.draw(&self.solve, false),
            Screen::Plain(plain) => to_stderr(&plain.tick(&mut self.solve)),
            Screen::Raw | Screen::Nothing => {}
        }
    }

    /// Shows what is left, the logs of failed steps and the warnings.
    pub fn finish(&mut self) {
        match &mut self.screen {
            Screen::Tree(tree) => tree.draw(&self.solve, true),
            Screen::Plain(plain) => to_stderr(&plain.finish(&mut self.solve)),
            Screen::Raw => return,
            Screen::Nothing => {}
        }
        failed::logs(&self.solve);
        if matches!(self.screen, Screen::Tree(_) | Screen::Plain(_)) {
            failed::warnings(&self.solve);
        }
    }

    /// Remembers where in the Dockerfile the build failed.
    pub fn failed_at(&mut self, line: Option<u64>) {
        self.failed_at = line.and_then(|line| usize::try_from(line).ok());
    }

    /// Why a build failed, with the lines of the Dockerfile that did.
    pub fn failure(&self, failure: Failure, excerpt: &Excerpt) -> Failure {
        if !matches!(self.screen, Screen::Raw) {
            excerpt.print(self.failed_at.unwrap_or_default());
        }
        let message = format!("ERROR: failed to solve: {}", failure.message);
        Failure { message, code: 1, ..failure }
    }
}
