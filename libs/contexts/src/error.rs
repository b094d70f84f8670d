use model::ErrorKind;

/// Why a tree, or what a client sends, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the tree is malformed: {0}")]
    Malformed(String),
    #[error("invalid path {0:?} in the context")]
    Path(String),
    /// fsutil's words for an entry that comes before its folder, or not in its place.
    #[error("changes out of order: {path:?} after {before:?}")]
    Order { path: String, before: String },
    #[error("{path:?} lies in {parent:?}, which is not a folder of the context")]
    Parent { path: String, parent: String },
    #[error("invalid file request {0}")]
    NotRequested(u32),
    #[error("the context has too many files or names: {0}")]
    TooLarge(&'static str),
    #[error("{path:?} has an unsupported mode {mode:o}")]
    Mode { path: String, mode: u32 },
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed(_) => ErrorKind::Corrupt,
            Self::TooLarge(_) => ErrorKind::Exhausted,
            _ => ErrorKind::InvalidArgument,
        }
    }
}
