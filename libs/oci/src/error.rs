use model::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} is not valid: {source}")]
    Json { what: &'static str, source: serde_json::Error },
    #[error("{what} is not valid: {reason}")]
    Invalid { what: &'static str, reason: String },
}

impl Error {
    pub(crate) fn json(what: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { what, source }
    }

    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}
