use model::ErrorKind;

/// What a request failed with: the kind decides the status, the message is what the client reads.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: ErrorKind,
    pub message: String,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
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

    pub fn not_built(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unimplemented, message)
    }
}

macro_rules! from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.kind(), error.to_string())
            }
        })*
    };
}

from!(bus::Error, metadata::Error, streams::Error, distribution::Error);

impl From<model::PlatformError> for Failure {
    fn from(error: model::PlatformError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// A digest of our own records.
impl From<model::DigestError> for Failure {
    fn from(error: model::DigestError) -> Self {
        Self::new(ErrorKind::Corrupt, error.to_string())
    }
}

impl From<model::ReferenceError> for Failure {
    fn from(error: model::ReferenceError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<Failure> for bus::Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure.message)
    }
}
