use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use model::Digest;

use super::refusal::Refusal;
use super::route::Route;

/// The token of this store, hashed: comparing hashes tells nothing about the token by its time.
pub struct Token(Digest);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Missing,
    Wrong,
    Right,
}

impl Token {
    pub fn new(token: &str) -> Self {
        Self(Digest::of(token.as_bytes()))
    }

    /// `Bearer <token>`, or `Basic` with the token as the password, as registry clients send it.
    pub fn check(&self, headers: &HeaderMap) -> Check {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Check::Missing };
        let given = value.to_str().ok().and_then(|value| {
            let (scheme, rest) = value.split_once(' ')?;
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some(rest.trim().to_owned());
            }
            let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
            Some(String::from_utf8(pair).ok()?.split_once(':')?.1.to_owned())
        });
        match given {
            Some(given) if Digest::of(given.as_bytes()) == self.0 => Check::Right,
            _ => Check::Wrong,
        }
    }

    /// Everybody may read plain repositories; all else needs the token.
    pub fn admit(&self, request: &Request, route: &Route) -> Result<(), Refusal> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD) && !matches!(route, Route::Upload(..));
        match self.check(request.headers()) {
            Check::Right => Ok(()),
            Check::Missing if reads && !route.is_internal() => Ok(()),
            Check::Missing | Check::Wrong => Err(Refusal::unauthorized()),
        }
    }
}

/// The lease that the request names.
pub fn lease(headers: &HeaderMap) -> Option<String> {
    headers.get("boxyard-lease")?.to_str().ok().map(str::to_owned)
}
