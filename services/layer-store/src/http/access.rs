use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use model::Digest;

use super::App;
use super::refusal::Refusal;
use super::route::Route;

/// What a client without a password gets from the token endpoint; worth as much as no token.
const ANONYMOUS: &str = "anonymous";

/// The token of this store. Its hash is what is compared: that tells nothing about the token by its time.
pub struct Token {
    text: String,
    hash: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Missing,
    Wrong,
    Right,
}

impl Token {
    pub fn new(token: &str) -> Self {
        Self { text: token.to_owned(), hash: Digest::of(token.as_bytes()) }
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
            Some(given) if given == ANONYMOUS => Check::Missing,
            Some(given) if Digest::of(given.as_bytes()) == self.hash => Check::Right,
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

/// The token endpoint of the distribution project's token authentication: registry clients ask here, with a password
/// or without, after they saw the challenge.
pub async fn token(State(app): State<Arc<App>>, request: Request) -> Response {
    let token = match app.token.check(request.headers()) {
        Check::Right => &app.token.text,
        Check::Missing => ANONYMOUS,
        Check::Wrong => return Refusal::unauthorized().into_response(),
    };
    axum::Json(serde_json::json!({ "token": token, "access_token": token })).into_response()
}

/// Tells a refused client where to get its token: at the address that it just called.
pub async fn challenge(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(host) = host.filter(|host| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b)))
        && let Ok(value) = HeaderValue::try_from(format!("Bearer realm=\"http://{host}/token\",service=\"boxyard\""))
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

/// The lease that the request names.
pub fn lease(headers: &HeaderMap) -> Option<String> {
    headers.get("boxyard-lease")?.to_str().ok().map(str::to_owned)
}
