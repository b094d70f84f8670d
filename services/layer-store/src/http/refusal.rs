use std::error::Error as _;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::ErrorKind;

/// A refused request: status, code and message of the distribution-spec's `errors` list.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
    }

    pub fn unsupported() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is unsupported")
    }

    pub fn name_invalid() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", "invalid repository name")
    }

    pub fn name_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known to registry")
    }

    pub fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub fn blob_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry")
    }

    pub fn upload_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    }

    pub fn manifest_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown")
    }

    pub fn manifest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    /// The body broke off; who sent it is most likely gone.
    pub fn broken_off(error: &axum::Error) -> Self {
        tracing::info!(error = error as &dyn std::error::Error, "an upload broke off");
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "the body broke off")
    }
}

impl From<blobs::Error> for Refusal {
    fn from(error: blobs::Error) -> Self {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::NotFound => Self::blob_unknown(),
            ErrorKind::InvalidArgument => Self::digest_invalid(message),
            ErrorKind::Exhausted => Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", message),
            ErrorKind::Conflict => Self::new(StatusCode::CONFLICT, "DENIED", message),
            _ => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::error!(error = message, cause, "the store failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", message)
            }
        }
    }
}

/// Files of a repository; a full disk is told as such.
impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return blobs::Error::NoSpace.into();
        }
        tracing::error!(error = &error as &dyn std::error::Error, "a repository's file failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the repository's files failed")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        // dockerd tells a missing manifest in its own words only where there is some detail.
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message, "detail": {} }] });
        (status, axum::Json(body)).into_response()
    }
}
