use std::time::Duration;

use http::StatusCode;
use model::{Digest, ErrorKind};
use serde::Deserialize;

use super::challenge::Challenge;
use super::refusal::{Refusal, cut};

/// Why a registry could not be read or written; the words are those of Docker's client of registries.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer came, or it broke off.
    #[error("{request}: {why}")]
    Transport { request: String, why: String, retry: bool },
    /// The registry says no, with its codes.
    #[error("{}", joined(.refusals))]
    Refused { status: StatusCode, refusals: Vec<Refusal>, retry_after: Option<Duration> },
    /// An error without codes.
    #[error("{words}")]
    Status { status: StatusCode, words: String, retry_after: Option<Duration> },
    /// The token that a request needs could not be got.
    #[error("{request}: {source}")]
    Token { request: String, source: Box<Self> },
    #[error("{0}")]
    NoToken(String),
    #[error("no basic auth credentials")]
    NoCredentials,
    /// What came is not what its digest, its size or its type says.
    #[error("{0}")]
    Lie(String),
    #[error("{what} is larger than {max_bytes} bytes")]
    TooLarge { what: String, max_bytes: u64 },
    #[error("filesystem layer verification failed for digest {0}")]
    WrongDigest(Digest),
    /// The bytes that were to be sent could not be read.
    #[error("{0}")]
    Source(#[from] crate::Error),
    /// The settings of this machine, not the registry, are wrong.
    #[error("{0}")]
    Settings(String),
}

/// An error of who works with a registry.
pub trait FromRegistry: From<Error> {
    /// What the registry's client has said, where it is that.
    fn registry(&self) -> Option<&Error>;
}

impl FromRegistry for Error {
    fn registry(&self) -> Option<&Error> {
        Some(self)
    }
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Transport { retry: true, .. } => ErrorKind::Unavailable,
            Self::Transport { .. } | Self::NoToken(_) | Self::Settings(_) => ErrorKind::Internal,
            Self::Refused { status, refusals, .. } => kind_of(*status, refusals),
            Self::Status { status, .. } => kind_of(*status, &[]),
            Self::Token { source, .. } => source.kind(),
            Self::Source(error) => error.kind(),
            Self::NoCredentials => ErrorKind::Unauthenticated,
            Self::Lie(_) | Self::WrongDigest(_) => ErrorKind::Corrupt,
            Self::TooLarge { .. } => ErrorKind::Exhausted,
        }
    }

    /// No HTTP answer came at all: another way to the same registry may do better.
    pub fn is_transport(&self) -> bool {
        matches!(self, Self::Transport { .. })
    }

    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Transport { retry, .. } => *retry,
            Self::Refused { status, .. } | Self::Status { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            // A token among the rest: it was tried again by itself already.
            _ => false,
        }
    }

    /// How long the registry wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The code of the first refusal, `MANIFEST_UNKNOWN`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { refusals, .. } => refusals.first().map(|refusal| refusal.code.as_str()),
            _ => None,
        }
    }

    /// The first refusal alone, which is what Docker shows of a pull.
    pub fn first_refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusals, .. } => refusals.first(),
            _ => None,
        }
    }

    /// An answer that is no success, as Docker's `HandleErrorResponse` reads it.
    pub(super) fn answer(status: StatusCode, challenge: Option<&Challenge>, body: &[u8]) -> Self {
        if !status.is_client_error() {
            return Self::Status {
                status,
                words: format!("received unexpected HTTP status: {status}"),
                retry_after: None,
            };
        }
        let mut refusals: Vec<Refusal> = challenge.and_then(Challenge::refusal).into_iter().collect();
        match listed(status, body) {
            Ok(listed) => refusals.extend(listed),
            Err(_) if status == StatusCode::UNAUTHORIZED && refusals.is_empty() => {
                refusals.push(Refusal::new("UNAUTHORIZED", "authentication required"));
            }
            Err(_) if !refusals.is_empty() => {}
            Err(words) => return Self::Status { status, words, retry_after: None },
        }
        Self::Refused { status, refusals, retry_after: None }
    }

    pub(super) fn after(mut self, pause: Option<Duration>) -> Self {
        if let Self::Refused { retry_after, .. } | Self::Status { retry_after, .. } = &mut self {
            *retry_after = pause;
        }
        self
    }
}

fn listed(status: StatusCode, body: &[u8]) -> Result<Vec<Refusal>, String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        details: String,
        #[serde(default)]
        errors: Vec<Refusal>,
    }
    let text = || format!("{:?}", cut(&String::from_utf8_lossy(body)));
    let number = status.as_u16();
    let parsed: Body = serde_json::from_slice(body)
        .map_err(|error| format!("error parsing HTTP {number} response body: {error}: {}", text()))?;
    if !parsed.details.is_empty() {
        let code = match status {
            StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
            StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
            _ => "UNKNOWN",
        };
        return Ok(vec![Refusal::new(code, &parsed.details)]);
    }
    if parsed.errors.is_empty() {
        return Err(format!(
            "error parsing HTTP {number} response body: no error details found in HTTP response body: {}",
            text()
        ));
    }
    Ok(parsed.errors)
}

fn joined(refusals: &[Refusal]) -> String {
    match refusals {
        [one] => one.to_string(),
        many => many.iter().fold("errors:\n".to_owned(), |text, one| format!("{text}{one}\n")),
    }
}

fn kind_of(status: StatusCode, refusals: &[Refusal]) -> ErrorKind {
    match refusals.first().map(|refusal| refusal.code.as_str()) {
        Some("MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN") => return ErrorKind::NotFound,
        Some("UNAUTHORIZED") => return ErrorKind::Unauthenticated,
        Some("DENIED") => return ErrorKind::Denied,
        _ => {}
    }
    match status {
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
        StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::Exhausted,
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_get_dockers_words() {
        let unauthorized: &[u8] =
            br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[]}]}"#;
        let scope = Challenge::parse_one(r#"Bearer realm="http://x/token",error="insufficient_scope""#);
        for (status, challenge, body, words) in [
            (
                404,
                None,
                &br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#[..],
                "manifest unknown",
            ),
            (401, None, unauthorized, "unauthorized: authentication required"),
            (401, None, b"<html>", "unauthorized: authentication required"),
            (
                401,
                None,
                br#"{"details":"incorrect username or password"}"#,
                "unauthorized: incorrect username or password",
            ),
            (
                401,
                scope.as_ref(),
                unauthorized,
                "errors:\ndenied: requested access to the resource is denied\nunauthorized: authentication required\n",
            ),
            (
                429,
                None,
                br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
                "toomanyrequests: slow down",
            ),
            (503, None, b"", "received unexpected HTTP status: 503 Service Unavailable"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Error::answer(status, challenge, body).to_string(), words, "{status}");
        }
        let error = Error::answer(StatusCode::NOT_FOUND, None, b"404 page not found");
        assert!(error.to_string().starts_with("error parsing HTTP 404 response body: "), "{error}");
        let long = Error::answer(StatusCode::NOT_FOUND, None, &[b'x'; 1 << 20]);
        assert!(long.to_string().len() < 2000, "a registry's words are cut");
    }

    #[test]
    fn what_passes_is_tried_again() {
        let answer = |status| Error::answer(StatusCode::from_u16(status).expect("a status"), None, b"");
        for (status, retried) in [(429, true), (500, true), (503, true), (501, false), (404, false), (401, false)] {
            assert_eq!(answer(status).is_retryable(), retried, "{status}");
        }
        assert!(Error::Transport { request: String::new(), why: String::new(), retry: true }.is_retryable());
    }
}
