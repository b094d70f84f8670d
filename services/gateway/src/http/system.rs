use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use http::{Method, StatusCode, Uri, header};
use serde_json::json;

use super::answer::{Answer, json_with, ok};
use super::query::Query;
use super::version::Version;
use crate::app::{App, Failure, now_ns};

pub async fn ping() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (header::HeaderName::from_static("builder-version"), "2"),
        (header::HeaderName::from_static("swarm"), "inactive"),
    ];
    (headers, "OK").into_response()
}

pub async fn version(State(app): State<Arc<App>>) -> Answer {
    ok(&app.version().await)
}

pub async fn info(State(app): State<Arc<App>>, version: Version) -> Answer {
    let mut info = app.info().await?;
    version.info(&mut info);
    ok(&info)
}

pub async fn disk_usage(State(app): State<Arc<App>>, version: Version, query: Query) -> Answer {
    let kinds = query.all("type").iter().map(|word| word.parse()).collect::<Result<Vec<_>, Failure>>()?;
    let mut usage = app.disk_usage(&kinds).await?;
    version.images(&mut usage["Images"]);
    ok(&usage)
}

pub async fn events(State(app): State<Arc<App>>, query: Query) -> Answer {
    let filters = query.filters_of_any()?;
    let (since, until) = (super::nanoseconds(&query, "since")?, super::nanoseconds(&query, "until")?);
    let (since, until) = (Some(since).filter(|&at| at != 0), Some(until).filter(|&at| at != 0));
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        let words =
            format!("`since` time ({}) cannot be after `until` time ({})", query.text("since"), query.text("until"));
        return Err(Failure::invalid(words).into());
    }
    let (past, live) = app.events.follow();
    let past: Vec<_> = past.into_iter().filter(|event| since.is_some_and(|since| event.time_ns >= since)).collect();
    let live = tokio_stream::wrappers::BroadcastStream::new(live);
    let live = live.filter_map(|told| async move { told.ok().filter(|told| !told.is_own()) });
    let left = until.map(|until| std::time::Duration::from_nanos(u64::try_from(until - now_ns()).unwrap_or(0)));
    let past = futures::stream::iter(past);
    let all = match left {
        // Docker does not follow when the end lies in the past.
        Some(left) if left.is_zero() => past.boxed(),
        Some(left) => past.chain(live.take_until(tokio::time::sleep(left))).boxed(),
        None => past.chain(live).boxed(),
    };
    let kept = all.filter(move |event| {
        let keep = until.is_none_or(|until| event.time_ns <= until) && event.passes(&filters);
        futures::future::ready(keep)
    });
    Ok(super::lines(kept.map(|event| event.json())))
}

/// Endpoints of the Engine API that are not built, as method and path; `*` is any one part of a path.
const NOT_BUILT: [(&str, &str); 17] = [
    ("POST", "/networks/create"),
    ("POST", "/networks/*/connect"),
    ("POST", "/networks/*/disconnect"),
    ("GET", "/containers/*/attach/ws"),
    ("GET", "/containers/*/checkpoints"),
    ("POST", "/containers/*/checkpoints"),
    ("DELETE", "/containers/*/checkpoints/*"),
    ("GET", "/plugins/privileges"),
    ("POST", "/plugins/pull"),
    ("POST", "/plugins/create"),
    ("POST", "/plugins/*/enable"),
    ("POST", "/plugins/*/disable"),
    ("POST", "/plugins/*/push"),
    ("POST", "/plugins/*/upgrade"),
    ("POST", "/plugins/*/set"),
    ("DELETE", "/plugins/*"),
    ("PUT", "/volumes/*"),
];
const SWARM_ROOMS: [&str; 6] = ["swarm", "nodes", "services", "tasks", "secrets", "configs"];

/// Docker's answer where no swarm is: `docker inspect` and others pass over it.
fn no_swarm() -> Response {
    let message = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
    json_with(StatusCode::SERVICE_UNAVAILABLE, &json!({"message": message}))
}

pub async fn plugins() -> Answer {
    ok(&json!([]))
}

pub async fn no_plugin(axum::extract::Path(name): axum::extract::Path<String>) -> Answer {
    Err(Failure::not_found(format!("plugin \"{name}\" not found")).into())
}

/// Leads a browser to the page; for everybody else nothing is here, as at Docker.
pub async fn root(method: Method, uri: Uri, headers: http::HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match accepted.contains("text/html") {
        true => axum::response::Redirect::temporary("/boxyard/").into_response(),
        false => unknown(method, uri).await,
    }
}

/// `docker inspect` asks for a container, a network, a volume and a plugin of an image's name before it asks for the
/// image: nothing else has a name with slashes.
fn nothing_called_so(path: &str) -> Option<String> {
    let (room, name) = path.strip_prefix('/')?.split_once('/')?;
    let inspected = name.strip_suffix("/json");
    let (name, message) = match room {
        "containers" => (inspected?, format!("No such container: {}", inspected?)),
        "plugins" => (inspected?, format!("plugin \"{}\" not found", inspected?)),
        "networks" => (name, format!("network {name} not found")),
        "volumes" => (name, format!("get {name}: no such volume")),
        _ => return None,
    };
    name.contains('/').then_some(message)
}

fn is_not_built(method: &str, path: &str) -> bool {
    let fits = |pattern: &str| {
        let (wanted, parts) = (pattern.split('/'), path.split('/'));
        wanted.clone().count() == parts.clone().count()
            && wanted.zip(parts).all(|(wanted, part)| wanted == part || wanted == "*" && !part.is_empty())
    };
    NOT_BUILT.iter().any(|(verb, pattern)| *verb == method && fits(pattern))
}

/// A route of the Engine API that is not built is 501 with its name; anything else is Docker's 404.
pub async fn unknown(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    let first = path.split('/').nth(1).unwrap_or_default();
    if SWARM_ROOMS.contains(&first) {
        return no_swarm();
    }
    if method == Method::GET
        && let Some(message) = nothing_called_so(path)
    {
        return json_with(StatusCode::NOT_FOUND, &json!({"message": message}));
    }
    if is_not_built(method.as_str(), path) {
        let message = format!("{method} {path} is not built yet");
        return json_with(StatusCode::NOT_IMPLEMENTED, &json!({"message": message}));
    }
    json_with(StatusCode::NOT_FOUND, &json!({"message": "page not found"}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_docker_has_is_not_built() {
        for (method, path, wanted) in [
            ("POST", "/networks/create", true),
            ("GET", "/networks/create", false),
            ("GET", "/containers/a/attach/ws", true),
            ("DELETE", "/containers/a/checkpoints/b", true),
            ("DELETE", "/containers//checkpoints/b", false),
            ("GET", "/containers/a/nosuch", false),
        ] {
            assert_eq!(is_not_built(method, path), wanted, "{method} {path}");
        }
    }

    #[test]
    fn only_names_with_slashes_are_nobodys() {
        for (path, wanted) in [
            ("/containers/127.0.0.1:5000/x:1/json", Some("No such container: 127.0.0.1:5000/x:1")),
            ("/networks/a/b", Some("network a/b not found")),
            ("/volumes/a/b", Some("get a/b: no such volume")),
            ("/plugins/a/b/json", Some("plugin \"a/b\" not found")),
            ("/containers/a/json", None),
            ("/containers/a/attach/ws", None),
            ("/networks/a", None),
            ("/swarm", None),
        ] {
            assert_eq!(nothing_called_so(path).as_deref(), wanted, "{path}");
        }
    }
}
