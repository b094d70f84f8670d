//! The Docker Engine API over unix sockets and TCP: parses, calls `app`, and writes the answer in Docker's shapes.
//! Beside it, in `boxyard`, Boxyard's own API and page. `guard` keeps pages of other sites out of both.

mod answer;
mod boxyard;
mod build_lines;
mod buildkit;
mod builds;
mod containers;
mod counts;
mod credentials;
mod exec;
mod guard;
mod hijack;
mod images;
mod networks;
mod peer;
mod query;
mod registry;
mod session;
mod system;
mod tls;
mod version;
mod volumes;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, head, post};
use http::{HeaderValue, StatusCode};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::app::App;

/// Serves the API on `unix:///path` or `tcp://ip:port`; the latter by TLS where there is a configuration for it.
pub async fn listen(host: &str, tls: Option<tls::Config>, app: Arc<App>) -> anyhow::Result<JoinHandle<()>> {
    let router = routes(app);
    let door = guard::Door::of(host, tls.is_some());
    let service = tower::service_fn(move |request: Request| {
        let router = router.clone();
        async move {
            let checked = door.check(request.headers()).map_err(|why| Box::new(answer::Refusal(why).into_response()));
            let response = match checked.and_then(|()| without_version(request)) {
                Ok(request) => router.oneshot(request).await.unwrap_or_else(|never| match never {}),
                Err(response) => *response,
            };
            Ok::<_, Infallible>(with_headers(response))
        }
    });
    let make = axum::ServiceExt::<Request>::into_make_service_with_connect_info::<peer::Connection>(service);
    if let Some(path) = host.strip_prefix("unix://") {
        use std::os::unix::fs::PermissionsExt as _;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        return Ok(tokio::spawn(async move {
            let _ = axum::serve(listener, make).await;
        }));
    }
    let address = host.strip_prefix("tcp://").ok_or_else(|| anyhow::anyhow!("write unix:///PATH or tcp://IP:PORT"))?;
    let listener = TcpListener::bind(address).await?;
    Ok(match tls {
        Some(config) => {
            let listener = tls::Listener::new(listener, config)?;
            tokio::spawn(async move { drop(axum::serve(listener, make).await) })
        }
        None => tokio::spawn(async move { drop(axum::serve(listener, make).await) }),
    })
}

/// Takes `/v1.NN` off the path; a version that is not spoken is refused in Docker's words.
fn without_version(mut request: Request) -> Result<Request, Box<Response>> {
    let path_and_query = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let Some(rest) = path_and_query.strip_prefix("/v") else { return Ok(request) };
    let (version, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let numbers = version.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some((major, minor)): Option<(u32, u32)> = numbers else { return Ok(request) };
    let refusal = match (major, minor) {
        (0, _) | (1, 0..24) => format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            engine_api::MIN_API_VERSION
        ),
        (1, 52..) | (2.., _) => {
            format!("client version {version} is too new. Maximum supported API version is {}", engine_api::API_VERSION)
        }
        _ => {
            if let Ok(uri) = if rest.is_empty() { "/" } else { rest }.parse() {
                *request.uri_mut() = uri;
            }
            request.extensions_mut().insert(version::Version(minor));
            return Ok(request);
        }
    };
    Err(Box::new(answer::Refusal(crate::app::Failure::invalid(refusal)).into_response()))
}

fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static(engine_api::API_VERSION));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert("Server", HeaderValue::from_static(concat!("Boxyard/", env!("CARGO_PKG_VERSION"), " (linux)")));
    response
}

fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(system::root))
        .route("/_ping", get(system::ping).head(system::ping))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/auth", post(registry::auth))
        .route("/events", get(system::events))
        .route("/system/df", get(system::disk_usage))
        .route("/networks", get(networks::list))
        .route("/networks/prune", post(networks::prune))
        .route("/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).delete(volumes::remove))
        .route("/plugins", get(system::plugins))
        .route("/plugins/{name}/json", get(system::no_plugin))
        .route("/images/json", get(images::list))
        .route("/images/load", post(images::load))
        .route("/images/get", get(images::save_many))
        .route("/images/create", post(images::create))
        .route("/images/prune", post(images::prune))
        .route("/images/search", get(registry::search))
        .route("/distribution/{*rest}", get(registry::distribution))
        .route("/images/{*rest}", any(images::named))
        .route("/build", post(builds::build))
        .route("/build/cancel", post(buildkit::docker::cancel))
        .route("/build/prune", post(builds::prune))
        .route("/session", post(session::session))
        .route("/commit", post(containers::commit))
        .route("/containers/json", get(containers::list))
        .route("/containers/create", post(containers::create))
        .route("/containers/prune", post(containers::prune))
        .route("/containers/{id}", axum::routing::delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/start", post(containers::start))
        .route("/containers/{id}/stop", post(containers::stop))
        .route("/containers/{id}/restart", post(containers::restart))
        .route("/containers/{id}/kill", post(containers::kill))
        .route("/containers/{id}/pause", post(containers::pause))
        .route("/containers/{id}/unpause", post(containers::unpause))
        .route("/containers/{id}/rename", post(containers::rename))
        .route("/containers/{id}/resize", post(containers::resize))
        .route("/containers/{id}/stats", get(containers::stats))
        .route("/containers/{id}/update", post(containers::update))
        .route("/containers/{id}/wait", post(containers::wait))
        .route("/containers/{id}/attach", post(containers::attach))
        .route("/containers/{id}/logs", get(containers::logs))
        .route("/containers/{id}/top", get(containers::top))
        .route("/containers/{id}/changes", get(containers::changes))
        .route("/containers/{id}/export", get(containers::export))
        .route(
            "/containers/{id}/archive",
            head(containers::archive_stat).get(containers::archive_get).put(containers::archive_put),
        )
        .route("/containers/{id}/exec", post(exec::create))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/json", get(exec::inspect))
        .route("/exec/{id}/resize", post(exec::resize))
        .fallback(system::unknown)
        .method_not_allowed_fallback(system::unknown)
        .merge(boxyard::routes())
        .merge(buildkit::grpc::routes(app.clone()))
        .layer(axum::middleware::from_fn(counts::count))
        .with_state(app)
}

/// A body of one JSON line after the other.
fn lines(stream: impl futures::Stream<Item = serde_json::Value> + Send + 'static) -> Response {
    lines_as("application/json", stream)
}

fn lines_as(
    content_type: &'static str,
    stream: impl futures::Stream<Item = serde_json::Value> + Send + 'static,
) -> Response {
    use futures::StreamExt as _;
    let bytes = stream.map(|line| Ok::<_, Infallible>(format!("{line}\r\n")));
    let mut response = Response::new(Body::from_stream(bytes));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert("Content-Type", HeaderValue::from_static(content_type));
    response
}

/// Unix seconds with a fraction, kept exact.
fn nanoseconds(query: &query::Query, key: &str) -> crate::app::Outcome<i64> {
    let text = query.text(key);
    if text.is_empty() || text == "0" {
        return Ok(0);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let wrong = || crate::app::Failure::invalid(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
    let seconds: i64 = seconds.parse().map_err(|_| wrong())?;
    let fraction: i64 = format!("{fraction:0<9}").get(..9).and_then(|f| f.parse().ok()).ok_or_else(wrong)?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(fraction))
}
