use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

use super::refusal::Refusal;

/// How a registry wants to be asked (RFC 9110, section 11; the distribution project's token authentication).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer(Bearer),
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Bearer {
    /// Where tokens are given out.
    pub realm: String,
    pub service: String,
    /// What the refused request needs; may be empty.
    pub scope: String,
    error: String,
    description: String,
}

impl Challenge {
    /// The challenge that can be met; a token is preferred, as Docker prefers it.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut found: Vec<Self> = values.flat_map(parse).collect();
        found.sort_by_key(|challenge| *challenge == Self::Basic);
        found.into_iter().next()
    }

    /// What is wrong with the token that came along, where the challenge says so (RFC 6750, section 3.1).
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let Self::Bearer(bearer) = self else { return None };
        let (code, words) = match bearer.error.as_str() {
            "invalid_token" => ("UNAUTHORIZED", "authentication required"),
            "insufficient_scope" => ("DENIED", "requested access to the resource is denied"),
            _ => return None,
        };
        Some(Refusal::new(code, if bearer.description.is_empty() { words } else { &bearer.description }))
    }

    #[cfg(test)]
    pub(super) fn parse_one(value: &str) -> Option<Self> {
        parse(value).into_iter().next()
    }
}

fn parse(value: &str) -> Vec<Challenge> {
    let Ok(challenges) = http_auth::parse_challenges(value) else { return Vec::new() };
    let known = challenges.into_iter().filter_map(|challenge| {
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut bearer = Bearer::default();
        for (name, value) in &challenge.params {
            let field = match name.to_ascii_lowercase().as_str() {
                "realm" => &mut bearer.realm,
                "service" => &mut bearer.service,
                "scope" => &mut bearer.scope,
                "error" => &mut bearer.error,
                "error_description" => &mut bearer.description,
                _ => continue,
            };
            *field = value.to_unescaped();
        }
        (!bearer.realm.is_empty()).then_some(Challenge::Bearer(bearer))
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: &str, scope: &str| {
            Some(Challenge::Bearer(Bearer {
                realm: realm.to_owned(),
                service: service.to_owned(),
                scope: scope.to_owned(),
                ..Bearer::default()
            }))
        };
        for (values, expected) in [
            (&[r#"Basic realm="Registry Realm""#][..], Some(Challenge::Basic)),
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                ],
                bearer("https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push"),
            ),
            (&[r#"Basic realm="x""#, r#"bearer Realm="https://t",Service="s""#], bearer("https://t", "s", "")),
            (&[r#"Basic realm="x", Bearer realm="https://t",service="s""#], bearer("https://t", "s", "")),
            (&[r#"Bearer service="s""#], None),
            (&["Negotiate"], None),
            (&["\"\"\"=,,"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WWW_AUTHENTICATE, value.parse().expect("a header"));
            }
            assert_eq!(Challenge::of(&headers), expected, "{values:?}");
        }
    }
}
