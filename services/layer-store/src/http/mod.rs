//! The registry over HTTP (OCI distribution-spec 1.1) and the upload of blobs whose digest is not known yet.

mod access;
mod blobs;
mod condition;
#[cfg(test)]
mod conformance;
mod lists;
mod manifests;
mod members;
mod passwords;
mod public;
mod range;
mod receive;
mod recent;
mod referrers;
mod refusal;
mod route;
mod send;
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
pub use self::passwords::Passwords;
use self::public::Public;
use self::recent::Recent;
use self::refusal::Refusal;
use self::route::Route;
use self::sessions::Sessions;
use crate::repositories::Repositories;

/// What every request may use.
pub struct App {
    blobs: Blobs,
    repositories: Repositories,
    sessions: Sessions,
    recent: Arc<Recent>,
    token: Token,
    /// None on the listener of Boxyard's own processes.
    public: Option<Public>,
    /// There also reading takes the token.
    closed: bool,
}

impl App {
    /// # Errors
    /// When the token is empty: then anybody could write.
    pub fn new(blobs: Blobs, repositories: Repositories, token: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(!token.is_empty(), "the token file is empty");
        let (sessions, recent) = (Sessions::default(), Arc::default());
        Ok(Self { blobs, repositories, sessions, recent, token: Token::new(token), public: None, closed: false })
    }

    /// The same registry for users, without Boxyard's own repository and blobs. With passwords nobody reads without
    /// one, and this app itself lets nobody read without its token.
    pub fn public(&mut self, passwords: Option<Passwords>) -> Self {
        self.closed = passwords.is_some();
        Self {
            blobs: self.blobs.clone(),
            repositories: self.repositories.clone(),
            sessions: self.sessions.clone(),
            recent: self.recent.clone(),
            // Of no use here; no route asks for it.
            token: Token::new(&format!("{:032x}", rand::random::<u128>())),
            public: Some(Public { passwords }),
            closed: false,
        }
    }

    /// Drops uploads that were left.
    pub fn sweep(&self) {
        self.sessions.sweep();
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

/// Only `/v2`, for users.
pub fn public_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v2", any(public_version))
        .route("/v2/", any(public_version))
        .route("/v2/{*rest}", any(registry))
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

async fn public_version(State(app): State<Arc<App>>, request: Request) -> Response {
    let admitted = match &app.public {
        Some(public) => public.admit(request.headers(), None).await,
        None => Err(Refusal::unauthorized()),
    };
    match admitted {
        Ok(()) => ([("docker-distribution-api-version", "registry/2.0")], "{}").into_response(),
        Err(refusal) => public::refused(refusal),
    }
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
    let is_public = app.public.is_some();
    outcome.unwrap_or_else(|refusal| if is_public { public::refused(refusal) } else { refusal.into_response() })
}

async fn answer(app: &App, route: Route, request: Request) -> Result<Response, Refusal> {
    match &app.public {
        Some(public) => public.admit(request.headers(), Some(&route)).await?,
        None if app.closed && app.token.check(request.headers()) == access::Check::Missing => {
            return Err(Refusal::unauthorized());
        }
        None => app.token.admit(&request, &route)?,
    }
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
        (Route::Blob(name, digest), Method::DELETE) => blobs::delete(app, &name, &digest).await,
        (Route::Manifest(name, reference), Method::DELETE) => manifests::delete(app, &name, &reference).await,
        (Route::Referrers(name, subject), Method::GET) => referrers::list(app, &name, &subject, request.uri()),
        (Route::Tags(name), Method::GET) => lists::tags(app, &name, request.uri()),
        (Route::Catalog, Method::GET) => lists::catalog(app, request.uri()),
        _ => Err(Refusal::unsupported()),
    }
}
