use std::path::{Path, PathBuf};
use std::time::Duration;

use model::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("network: {0}")]
    Netlink(String),
    #[error("nft: {0}")]
    Firewall(String),
    #[error("another process of this machine has had {0:?} for {1:?}: is it stopped?")]
    Locked(PathBuf, Duration),
    #[error("no free address or subnet")]
    Exhausted,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Exhausted => ErrorKind::Exhausted,
            Self::Locked(..) => ErrorKind::Unavailable,
            Self::Io { .. } | Self::Netlink(_) | Self::Firewall(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn net(error: impl std::fmt::Display) -> Self {
        Self::Netlink(error.to_string())
    }
}
