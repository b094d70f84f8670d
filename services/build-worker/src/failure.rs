use std::io;

/// Why a build ended without an image.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The author's mistake, or something that only they can mend; in Docker's words.
    #[error("{0}")]
    User(String),
    /// As [`Failure::User`], of an instruction that begins at this line of the Dockerfile.
    #[error("{message}")]
    Dockerfile { line: usize, message: String },
    /// A RUN instruction's command failed.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command { command: String, code: i32 },
    /// As [`Failure::Command`], in BuildKit's words.
    #[error("process {} did not complete successfully: exit code: {code}", dockerfile::quote(command))]
    Process { command: String, code: i32 },
    #[error("the build was cancelled")]
    Cancelled,
    /// Another worker has the build now, or nobody; nothing more may be written for it.
    #[error("the lease of the build was lost")]
    Lost,
    /// The claim of a step was not renewed in time, so its process was killed: it is to be claimed anew.
    #[error("the step was cut off from the bus for too long")]
    CutOff,
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error(transparent)]
    Bus(bus::Error),
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    pub fn user(message: impl Into<String>) -> Self {
        Self::User(message.into())
    }

    /// An error of another room, with its causes.
    pub fn caused(error: impl std::error::Error) -> Self {
        Self::Internal(chain(&error))
    }

    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    /// The same of the instruction that begins at a line, where it is the author's mistake and its line is not known.
    #[must_use]
    pub fn on(self, line: usize) -> Self {
        match self {
            Self::User(message) => Self::Dockerfile { line, message },
            other => other,
        }
    }

    /// The code that goes with the error line: a failed command's own.
    pub fn code(&self) -> i32 {
        match self {
            Self::Command { code, .. } | Self::Process { code, .. } => *code,
            _ => 0,
        }
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some say their cause themselves.
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(&format!(": {said}"));
        }
        cause = error.source();
    }
    text
}

/// Adds what was being done to an error of the operating system.
pub trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure::Io { doing: what(), source })
    }
}

impl From<dockerfile::Error> for Failure {
    fn from(error: dockerfile::Error) -> Self {
        match error.line() {
            0 => Self::User(error.to_string()),
            line => Self::Dockerfile { line, message: error.to_string() },
        }
    }
}

impl From<bus::Error> for Failure {
    /// The gateway says with a conflict that the build has another holder.
    fn from(error: bus::Error) -> Self {
        match error.kind() {
            model::ErrorKind::Conflict => Self::Lost,
            _ => Self::Bus(error),
        }
    }
}
