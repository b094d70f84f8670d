use http::StatusCode;
use model::{Digest, ErrorKind};

/// Why a blob could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("talking to the layer store")]
    Unreachable(#[source] reqwest::Error),
    #[error("{message}")]
    Refused { kind: ErrorKind, message: String },
    #[error("blob {wanted} came as {got}")]
    WrongDigest { wanted: Digest, got: Digest },
    #[error("blob {digest} is larger than {max_bytes} bytes")]
    TooLarge { digest: Digest, max_bytes: u64 },
    #[error("the layer store's answer makes no sense: {0}")]
    BadAnswer(String),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable(_) => ErrorKind::Unavailable,
            Self::Refused { kind, .. } => *kind,
            Self::WrongDigest { .. } => ErrorKind::Corrupt,
            Self::TooLarge { .. } => ErrorKind::Exhausted,
            Self::BadAnswer(_) => ErrorKind::Internal,
        }
    }

    /// A status that is not a success, with the first message of the body's `errors` list (distribution-spec, Error Codes).
    pub(crate) fn refused(status: StatusCode, body: &[u8]) -> Self {
        let message = serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|json| json.pointer("/errors/0/message")?.as_str().map(str::to_owned))
            .unwrap_or_else(|| format!("the layer store answered {status}"));
        Self::Refused { kind: kind_of(status), message }
    }
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
        StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::CONFLICT => ErrorKind::Conflict,
        StatusCode::INSUFFICIENT_STORAGE | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => {
            ErrorKind::Exhausted
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ErrorKind::Timeout,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
        status if status.is_client_error() => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_kind_and_words() {
        let body = br#"{"errors":[{"code":"UNKNOWN","message":"no space left on device"}]}"#;
        let error = Error::refused(StatusCode::INSUFFICIENT_STORAGE, body);
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Exhausted, "no space left on device"));
        let error = Error::refused(StatusCode::BAD_REQUEST, b"<html>");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.to_string(), "the layer store answered 400 Bad Request");
    }
}
