use thiserror::Error as ThisError;

/// What is wrong with a Dockerfile, in Docker's words. Every one is an invalid argument.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The text could not be split into instructions.
    #[error("failed to parse Dockerfile: {0}")]
    Syntax(String),
    /// One instruction is wrong; the line is where it starts.
    #[error("dockerfile parse error line {line}: {message}")]
    Instruction { line: usize, message: String },
    /// An instruction other than ARG stands before the first FROM, or there is no FROM at all.
    #[error("no build stage in current context")]
    NoStage,
    /// A variable could not be expanded.
    #[error("failed to process {word:?}: {message}")]
    Expansion { word: String, message: String },
    /// A `--change` instruction is wrong; the message stands alone.
    #[error("{0}")]
    Change(String),
}

impl Error {
    pub(crate) fn at(line: usize, message: impl Into<String>) -> Self {
        Self::Instruction { line, message: message.into() }
    }

    /// The message without where it was found, as `commit -c` prints it.
    pub(crate) fn bare(self) -> String {
        match self {
            Self::Syntax(message) | Self::Instruction { message, .. } | Self::Change(message) => message,
            other => other.to_string(),
        }
    }
}
