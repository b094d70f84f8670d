use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// A registry's words are cut after this many bytes.
const SHOWN_BYTES: usize = 1024;

/// Codes and what they say by themselves (distribution-spec, Error Codes; the distribution project's `errcode`).
const CODES: &[(&str, &str)] = &[
    ("UNKNOWN", "unknown error"),
    ("UNSUPPORTED", "The operation is unsupported."),
    ("UNAUTHORIZED", "authentication required"),
    ("DENIED", "requested access to the resource is denied"),
    ("UNAVAILABLE", "service unavailable"),
    ("TOOMANYREQUESTS", "too many requests"),
    ("DIGEST_INVALID", "provided digest did not match uploaded content"),
    ("SIZE_INVALID", "provided length did not match content length"),
    ("NAME_INVALID", "invalid repository name"),
    ("TAG_INVALID", "manifest tag did not match URI"),
    ("NAME_UNKNOWN", "repository name not known to registry"),
    ("MANIFEST_UNKNOWN", "manifest unknown"),
    ("MANIFEST_INVALID", "manifest invalid"),
    ("MANIFEST_UNVERIFIED", "manifest failed signature verification"),
    ("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"),
    ("BLOB_UNKNOWN", "blob unknown to registry"),
    ("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
    ("BLOB_UPLOAD_INVALID", "blob upload invalid"),
];

/// One entry of a registry's list of errors (distribution-spec, Error Codes).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Entry")]
pub struct Refusal {
    /// `MANIFEST_UNKNOWN`
    pub code: String,
    /// None where the registry says no more than its code does, which Docker shows as the code alone.
    pub message: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: Value,
}

impl From<Entry> for Refusal {
    fn from(Entry { code, message, detail }: Entry) -> Self {
        let usual = CODES.iter().find(|(known, _)| *known == code).map(|(_, words)| *words);
        let says_more = !detail.is_null() || !message.is_empty() && usual != Some(&message);
        Self { code, message: says_more.then_some(message) }
    }
}

impl Refusal {
    pub(super) fn new(code: &str, message: &str) -> Self {
        Self { code: code.to_owned(), message: Some(message.to_owned()) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A code of the registry's own is none to Docker.
        let known = CODES.iter().find(|(known, _)| *known == self.code);
        let code = known.map_or("unknown", |(known, _)| known).to_ascii_lowercase().replace('_', " ");
        match &self.message {
            Some(message) => write!(f, "{code}: {}", cut(message)),
            None => f.write_str(&code),
        }
    }
}

pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_shown_as_docker_shows_them() {
        for (entry, words) in [
            (
                r#"{"code":"UNAUTHORIZED","message":"authentication required","detail":[]}"#,
                "unauthorized: authentication required",
            ),
            (r#"{"code":"UNAUTHORIZED","message":"authentication required","detail":null}"#, "unauthorized"),
            (r#"{"code":"UNAUTHORIZED","message":"Not authorized."}"#, "unauthorized: Not authorized."),
            (r#"{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}"#, "manifest unknown"),
            (r#"{"code":"DENIED"}"#, "denied"),
            (r#"{"status":401,"message":"Bad credentials"}"#, "unknown: Bad credentials"),
            (r#"{"code":"OWN_CODE","message":"no"}"#, "unknown: no"),
        ] {
            let refusal: Refusal = serde_json::from_str(entry).expect("an entry");
            assert_eq!(refusal.to_string(), words);
        }
    }
}
