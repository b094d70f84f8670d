//! What a request says that it has, or that it takes: entity tags and media types (RFC 9110, sections 12 and 13).

use axum::http::{HeaderMap, header};
use model::Digest;

/// A digest names its content, so it is a strong entity tag.
pub fn entity_tag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// `If-None-Match` names this content: the client has it.
pub fn is_held(headers: &HeaderMap, digest: &Digest) -> bool {
    let tag = entity_tag(digest);
    let same = |text: &str| matches!(text.trim().trim_start_matches("W/"), held if held == "*" || held == tag);
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(same)
}

/// A range is asked for of another content: then the whole is sent.
pub fn range_is_of_another(headers: &HeaderMap, digest: &Digest) -> bool {
    headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() != entity_tag(digest).as_bytes())
}

/// The client takes this media type; one that says nothing takes all.
pub fn is_accepted(headers: &HeaderMap, media_type: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if values.peek().is_none() {
        return true;
    }
    values.flat_map(|value| value.split(',')).any(|range| {
        let range = range.split(';').next().unwrap_or(range).trim();
        range == media_type || range == "*/*" || range == "application/*"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lists() {
        let digest = Digest::of(b"");
        let with = |name: header::HeaderName, values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&name, value.parse().expect("a header"));
            }
            headers
        };
        let tag = entity_tag(&digest);
        for (value, held) in [
            (tag.clone(), true),
            (format!("W/{tag}"), true),
            (format!("\"x\", {tag}"), true),
            ("*".to_owned(), true),
            ("\"x\"".to_owned(), false),
            (digest.to_string(), false),
        ] {
            assert_eq!(is_held(&with(header::IF_NONE_MATCH, &[&value]), &digest), held, "{value}");
        }
        for (values, accepted) in [
            (&[][..], true),
            (&["*/*"], true),
            (&["text/html", "application/a;q=0.5"], true),
            (&["text/html, application/a"], true),
            (&["application/b"], false),
        ] {
            assert_eq!(is_accepted(&with(header::ACCEPT, values), "application/a"), accepted, "{values:?}");
        }
    }
}
