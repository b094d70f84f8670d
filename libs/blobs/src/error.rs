use std::io;

use model::{Digest, ErrorKind};

/// Why a blob could not be read, written or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("blob {0} is not in the store")]
    NotFound(Digest),
    #[error("lease {0} does not exist or is over")]
    NoLease(String),
    #[error("the content has digest {got}, not {wanted}")]
    WrongDigest { wanted: Digest, got: Digest },
    #[error("no space left on device")]
    NoSpace,
    #[error("{doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::NoLease(_) => ErrorKind::Conflict,
            Self::WrongDigest { .. } => ErrorKind::InvalidArgument,
            Self::NoSpace => ErrorKind::Exhausted,
            Self::Io { .. } => ErrorKind::Internal,
        }
    }

    /// For `map_err`: says what was being done; a full disk becomes `NoSpace` wherever it shows.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io { doing, source },
        }
    }
}
