//! The registry over HTTP (OCI distribution-spec 1.1) and the upload of blobs whose digest is not known yet.

mod access;
mod blobs;
mod lists;
mod manifests;
mod members;
mod range;
mod receive;
mod refusal;
mod route;
mod sessions;
#[cfg(test)]
mod tests;
pub mod tls;
mod uploads;

use std::path::PathBuf;
use std::sync::Arc;

use ::blobs::Blobs;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};

use self::access::Token;
use self::members::Members;
use self::refusal::Refusal;
use self::route::Route;
use self::sessions::Sessions;
use crate::repositories::Repositories;

/// What every request may use.
pub struct App {
    blobs: Blobs,
    repositories: Repositories,
    sessions: Sessions,
    token: Token,
}

impl App {
    /// # Errors
    /// When the token is empty: then anybody could write.
    pub fn new(blobs: Blobs, repositories: Repositories, token: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(!token.is_empty(), "the token file is empty");
        Ok(Self { blobs, repositories, sessions: Sessions::default(), token: Token::new(token) })
    }

    /// The same, and tokens of `file` are limited to internal blobs.
    pub fn with_tokens(mut self, file: Option<PathBuf>) -> Self {
        self.token.members = file.map(Members::new);
        self
    }
}

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v2", any(version))
        .route("/v2/", any(version))
        .route("/v2/{*rest}", any(registry))
        .route("/internal/blobs", post(store))
        .route("/token", get(access::token))
        .layer(axum::middleware::from_fn(access::challenge))
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

/// The specification's end-1. Without a token it is a challenge, since clients learn only here how to get one;
/// the anonymous token is good enough.
async fn version(State(app): State<Arc<App>>, request: Request) -> Response {
    if !request.headers().contains_key(header::AUTHORIZATION)
        || app.token.check(request.headers()) == access::Check::Wrong
    {
        return Refusal::unauthorized().into_response();
    }
    ([("docker-distribution-api-version", "registry/2.0")], "{}").into_response()
}

async fn store(State(app): State<Arc<App>>, request: Request) -> Response {
    let outcome = match app.token.check(request.headers()) {
        access::Check::Right | access::Check::Member => uploads::store(&app, request).await,
        access::Check::Missing | access::Check::Wrong => Err(Refusal::unauthorized()),
    };
    outcome.unwrap_or_else(|refusal| refusal.into_response())
}

async fn registry(State(app): State<Arc<App>>, Path(rest): Path<String>, request: Request) -> Response {
    let outcome = match Route::parse(&rest) {
        Ok(route) => answer(&app, route, request).await,
        Err(refusal) => Err(refusal),
    };
    outcome.unwrap_or_else(|refusal| refusal.into_response())
}

async fn answer(app: &App, route: Route, request: Request) -> Result<Response, Refusal> {
    app.token.admit(&request, &route)?;
    let method = request.method().clone();
    match (route, method) {
        (Route::Blob(name, digest), Method::GET | Method::HEAD) => blobs::get(app, &name, &digest, &request),
        (Route::Uploads(name), Method::POST) => uploads::begin(app, name, request).await,
        (Route::Upload(name, id), Method::PATCH) => uploads::append(app, &name, &id, request).await,
        (Route::Upload(name, id), Method::PUT) => uploads::finish(app, &name, &id, request).await,
        (Route::Upload(name, id), Method::GET) => uploads::status(app, &name, &id),
        (Route::Upload(name, id), Method::DELETE) => uploads::cancel(app, &name, &id),
        (Route::Manifest(name, reference), Method::GET | Method::HEAD) => {
            manifests::get(app, &name, &reference, &request)
        }
        (Route::Manifest(name, reference), Method::PUT) => manifests::put(app, &name, &reference, request).await,
        (Route::Tags(name), Method::GET) => lists::tags(app, &name, request.uri()),
        (Route::Catalog, Method::GET) => lists::catalog(app, request.uri()),
        _ => Err(Refusal::unsupported()),
    }
}
