use model::ErrorKind;

/// What a call failed with, here or on the other side of the bus. The message is for people, in Docker's words where
/// Docker has words; the kind decides status and retry.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    lost: bool,
    absent: bool,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), lost: false, absent: false }
    }

    /// Nobody serves the call, or who did has fallen silent: no word of the server's own.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self { lost: true, ..Self::unavailable(message) }
    }

    /// The bus says that nobody serves the call.
    pub(crate) fn absent(message: impl Into<String>) -> Self {
        Self { absent: true, ..Self::lost(message) }
    }

    /// The bus is there, and nobody serves the call: so nobody has decided anything meanwhile.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// No server has answered: another one, or the same one started again, may.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }
}
