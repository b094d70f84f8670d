use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use model::Digest;

use super::App;
use super::members::Members;
use super::refusal::Refusal;
use super::route::Route;

/// What a client without a password gets from the token endpoint; worth as much as no token.
const ANONYMOUS: &str = "anonymous";

/// The token of this store. Its hash is what is compared: that tells nothing about the token by its time.
pub struct Token {
    text: String,
    hash: Digest,
    /// Tokens that reach internal blobs only.
    pub(super) members: Option<Members>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Missing,
    Wrong,
    /// Right for internal blobs.
    Member,
    Right,
}

impl Token {
    pub fn new(token: &str) -> Self {
        Self { text: token.to_owned(), hash: Digest::of(token.as_bytes()), members: None }
    }

    /// `Bearer <token>`, or `Basic` with the token as the password, as registry clients send it.
    pub fn check(&self, headers: &HeaderMap) -> Check {
        if !headers.contains_key(header::AUTHORIZATION) {
            return Check::Missing;
        }
        let Some(given) = given(headers) else { return Check::Wrong };
        if given == ANONYMOUS {
            return Check::Missing;
        }
        let hash = Digest::of(given.as_bytes());
        if hash == self.hash {
            return Check::Right;
        }
        match self.members.as_ref().is_some_and(|members| members.know(&hash)) {
            true => Check::Member,
            false => Check::Wrong,
        }
    }

    /// Everybody may read plain repositories; all else needs the token.
    pub fn admit(&self, request: &Request, route: &Route) -> Result<(), Refusal> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD) && !matches!(route, Route::Upload(..));
        match self.check(request.headers()) {
            Check::Right => Ok(()),
            Check::Member if reads || writes_internal_blob(request.method(), route) => Ok(()),
            Check::Member => {
                tracing::warn!(method = %request.method(), path = request.uri().path(), "a limited token was denied");
                Err(Refusal::unauthorized())
            }
            Check::Wrong => {
                tracing::warn!(method = %request.method(), path = request.uri().path(), "an unknown token was denied");
                Err(Refusal::unauthorized())
            }
            Check::Missing if reads && !route.is_internal() => Ok(()),
            Check::Missing => Err(Refusal::unauthorized()),
        }
    }
}

/// A blob has the name of its content, so who may only write blobs can replace nothing.
fn writes_internal_blob(method: &Method, route: &Route) -> bool {
    let uploads = matches!(route, Route::Uploads(_) | Route::Upload(..));
    uploads && route.is_internal() && matches!(*method, Method::POST | Method::PATCH | Method::PUT)
}

/// The token, or the password, that the request shows.
fn given(headers: &HeaderMap) -> Option<String> {
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    Some(String::from_utf8(pair).ok()?.split_once(':')?.1.to_owned())
}

/// The token endpoint of the distribution project's token authentication: registry clients ask here, with a password
/// or without, after they saw the challenge.
pub async fn token(State(app): State<Arc<App>>, request: Request) -> Response {
    let token = match app.token.check(request.headers()) {
        Check::Right => &app.token.text,
        Check::Missing => ANONYMOUS,
        // Limited tokens are for Boxyard's own processes, which don't ask here.
        Check::Member | Check::Wrong => return Refusal::unauthorized().into_response(),
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

/// The lease that the request names; only Boxyard's own processes may.
pub fn lease(app: &App, headers: &HeaderMap) -> Option<String> {
    if app.public.is_some() {
        return None;
    }
    headers.get("boxyard-lease")?.to_str().ok().map(str::to_owned)
}
