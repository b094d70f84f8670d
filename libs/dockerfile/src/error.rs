use thiserror::Error as ThisError;

use crate::dialect::Dialect;
use crate::quote::quote;

/// What is wrong with a Dockerfile, in the words of the dialect that it was parsed with. Every one is an invalid argument.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The text could not be split into instructions; the line is that of the instruction, 0 for the whole file.
    #[error("{}{message}", dialect.syntax())]
    Syntax { dialect: Dialect, line: usize, message: String },
    /// One instruction is wrong; the line is where it starts.
    #[error("dockerfile parse error on line {line}: {message}")]
    Instruction { line: usize, message: String },
    /// An instruction other than ARG stands before the first FROM.
    #[error("no build stage in current context")]
    BeforeFrom { line: usize },
    /// There is no FROM at all.
    #[error("{}", match dialect {
        Dialect::Classic => "no build stage in current context",
        Dialect::BuildKit => "dockerfile contains no stages to build",
    })]
    NoStage { dialect: Dialect },
    /// A variable could not be expanded.
    #[error("failed to process {}: {message}", quote(word))]
    Expansion { line: usize, word: String, message: String },
    /// What an instruction asks for makes no sense once its variables are known, or together with others.
    #[error("{message}")]
    Meaning { line: usize, message: String },
    /// A `--change` instruction is wrong; the message stands alone.
    #[error("{0}")]
    Change(String),
}

impl Error {
    pub(crate) fn meaning(message: impl Into<String>) -> Self {
        Self::Meaning { line: 0, message: message.into() }
    }

    /// The same error of the instruction at a line, unless it knows its line already.
    #[must_use]
    pub fn on(mut self, at: usize) -> Self {
        if let Self::Expansion { line, .. } | Self::Meaning { line, .. } = &mut self
            && *line == 0
        {
            *line = at;
        }
        self
    }

    /// The line that the error is about, counted from 1; 0 where it is about none.
    pub fn line(&self) -> usize {
        match self {
            Self::Syntax { line, .. }
            | Self::Instruction { line, .. }
            | Self::BeforeFrom { line }
            | Self::Expansion { line, .. }
            | Self::Meaning { line, .. } => *line,
            Self::NoStage { .. } | Self::Change(_) => 0,
        }
    }

    /// The message without where it was found, as `commit -c` prints it.
    pub(crate) fn bare(self) -> String {
        match self {
            Self::Syntax { message, .. } | Self::Instruction { message, .. } | Self::Change(message) => message,
            other => other.to_string(),
        }
    }
}
