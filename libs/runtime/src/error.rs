use model::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request names something that can't be: a user, a capability, a device.
    #[error("{0}")]
    Invalid(String),
    /// The OCI runtime refused to start the process; `code` is what Docker gives as the exit code (126, 127, or 128).
    #[error("{message}")]
    Start { message: String, code: i32 },
    #[error("{doing}")]
    Io { doing: String, source: std::io::Error },
    /// The shim is gone and left no exit status.
    #[error("the container's shim is gone")]
    Lost,
    /// The shim answered something that it should not.
    #[error("shim: {0}")]
    Shim(String),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::InvalidArgument,
            Self::Start { code: 126 | 127, .. } => ErrorKind::InvalidArgument,
            Self::Start { .. } | Self::Io { .. } | Self::Shim(_) => ErrorKind::Internal,
            Self::Lost => ErrorKind::Unavailable,
        }
    }

    /// Exit code that Docker gives to a container whose start failed with this error.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Start { code, .. } => *code,
            _ => 128,
        }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
