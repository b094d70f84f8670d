use std::io;

use model::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive is not what it should be, in words for its owner.
    #[error("{0}")]
    Archive(String),
    #[error("{}", read_words(.0))]
    Read(io::Error),
    #[error("spooling the archive: {0}")]
    Spool(io::Error),
    #[error("{0}")]
    Stream(#[from] streams::Error),
    #[error("{0}")]
    Store(#[from] distribution::Error),
    #[error("{0}")]
    Format(#[from] oci::Error),
    /// What a registry did, in words of its client.
    #[error("{0}")]
    Registry(#[from] distribution::registry::Error),
    /// The same in Docker's words, or what is wrong with what it sent.
    #[error("{text}")]
    Remote { kind: ErrorKind, text: String },
    #[error("{0}")]
    Bus(#[from] bus::Error),
    #[error("a task of the archive reader broke down")]
    Task,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Spool(error) if error.kind() == io::ErrorKind::StorageFull => ErrorKind::Exhausted,
            Self::Archive(_) | Self::Read(_) => ErrorKind::InvalidArgument,
            Self::Spool(_) | Self::Task => ErrorKind::Internal,
            Self::Stream(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Format(error) => error.kind(),
            // Unavailable would mean that this process is; another one would not fare better with the registry.
            Self::Registry(error) => match error.kind() {
                ErrorKind::Unavailable => ErrorKind::Internal,
                kind => kind,
            },
            Self::Remote { kind, .. } => *kind,
            Self::Bus(error) => error.kind(),
        }
    }
}

impl distribution::registry::FromRegistry for Error {
    fn registry(&self) -> Option<&distribution::registry::Error> {
        match self {
            Self::Registry(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for bus::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}

/// An archive that ends too early gets Docker's words for it.
fn read_words(error: &io::Error) -> String {
    let text = error.to_string();
    // The tar reader gives its own error no kind.
    if error.kind() == io::ErrorKind::UnexpectedEof || text.contains("failed to read entire block") {
        return "unexpected EOF".to_owned();
    }
    format!("reading the archive: {text}")
}
