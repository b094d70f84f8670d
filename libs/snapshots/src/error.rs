use std::io;
use std::path::PathBuf;
use std::time::Duration;

use model::{DiffId, ErrorKind};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {path:?}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("reading the archive: {0}")]
    Archive(io::Error),
    #[error("writing the archive: {0}")]
    Write(io::Error),
    #[error("invalid tar entry {name:?}: {reason}")]
    Entry { name: String, reason: String },
    #[error("wrong diff id calculated on extraction {got:?}, expected {wanted:?}")]
    DiffId { wanted: DiffId, got: DiffId },
    #[error("another process of this machine has had {0:?} for {1:?}: is it stopped?")]
    Locked(PathBuf, Duration),
    #[error("layer {0} is not unpacked on this machine")]
    NoLayer(DiffId),
    #[error("not a name for an owner of layers: {0:?}")]
    Owner(String),
    #[error("too many layers for one mount: {0}")]
    TooManyLayers(usize),
    #[error("no such path: {0:?}")]
    NoPath(PathBuf),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn sys(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Io { doing, path, source: errno.into() }
    }

    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } | Self::Archive(source) | Self::Write(source)
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                ErrorKind::Exhausted
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Io { .. } | Self::Write(_) => ErrorKind::Internal,
            Self::Archive(_) | Self::Entry { .. } | Self::TooManyLayers(_) | Self::Owner(_) => {
                ErrorKind::InvalidArgument
            }
            Self::DiffId { .. } => ErrorKind::Corrupt,
            Self::Locked(..) => ErrorKind::Unavailable,
            Self::NoLayer(_) | Self::NoPath(_) => ErrorKind::NotFound,
        }
    }
}
