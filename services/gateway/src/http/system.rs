use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use http::{Method, StatusCode, Uri, header};
use serde_json::json;

use super::answer::{Answer, json_with, ok};
use super::query::Query;
use crate::app::{App, now_ns};

pub async fn ping() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (header::HeaderName::from_static("builder-version"), "1"),
        (header::HeaderName::from_static("swarm"), "inactive"),
    ];
    (headers, "OK").into_response()
}

pub async fn version(State(app): State<Arc<App>>) -> Answer {
    ok(&app.version().await)
}

pub async fn info(State(app): State<Arc<App>>) -> Answer {
    ok(&app.info().await?)
}

pub async fn disk_usage(State(app): State<Arc<App>>) -> Answer {
    ok(&app.disk_usage().await?)
}

pub async fn auth(_body: Bytes) -> Answer {
    Ok(json_with(StatusCode::NOT_IMPLEMENTED, &json!({"message": "logging in to a registry is not built yet"})))
}

pub async fn networks(State(app): State<Arc<App>>) -> Answer {
    let node = app.known_nodes().await.into_iter().next().unwrap_or_default();
    let network = |name: &str, driver: &str, id: &str, config: serde_json::Value| {
        json!({"Name": name, "Id": id, "Created": "0001-01-01T00:00:00Z", "Scope": "local", "Driver": driver,
            "EnableIPv4": true, "EnableIPv6": false, "IPAM": {"Driver": "default", "Options": null, "Config": config},
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""},
            "ConfigOnly": false, "Containers": {}, "Options": {}, "Labels": {}})
    };
    let subnet = json!([{"Subnet": node.bridge_subnet, "Gateway": node.bridge_gateway}]);
    ok(&json!([
        network("bridge", "bridge", &node.bridge_network_id, subnet),
        network("host", "host", "host", json!([])),
        network("none", "null", "none", json!([])),
    ]))
}

pub async fn volumes(State(app): State<Arc<App>>) -> Answer {
    let mut volumes = Vec::new();
    for node in app.known_nodes().await {
        let list = app.node_call::<bus::calls::VolumeList>(&node.id, &proto::Empty {}).await?;
        volumes.extend(list.volumes.into_iter().map(|volume| {
            json!({"CreatedAt": engine_api::time(volume.created_at_ns), "Driver": "local",
                "Labels": volume.labels.iter().collect::<std::collections::BTreeMap<_, _>>(),
                "Mountpoint": volume.mountpoint, "Name": volume.name,
                "Options": volume.options.iter().collect::<std::collections::BTreeMap<_, _>>(), "Scope": "local"})
        }));
    }
    ok(&json!({"Volumes": volumes, "Warnings": null}))
}

pub async fn events(State(app): State<Arc<App>>, query: Query) -> Answer {
    let filters = query.filters()?;
    let nanos = |key: &str| query.maybe(key).and_then(|text| text.parse::<f64>().ok()).map(|s| (s * 1e9) as i64);
    let (since, until) = (nanos("since"), nanos("until"));
    let (past, live) = app.events.follow();
    let past: Vec<_> = past.into_iter().filter(|event| since.is_some_and(|since| event.time_ns >= since)).collect();
    let live = tokio_stream::wrappers::BroadcastStream::new(live).filter_map(|event| async move { event.ok() });
    let left = until.map(|until| std::time::Duration::from_nanos(u64::try_from(until - now_ns()).unwrap_or(0)));
    let all = futures::stream::iter(past).chain(live).filter(move |event| {
        let matches =
            |key: &str, test: &dyn Fn(&String) -> bool| filters.get(key).is_none_or(|values| values.iter().any(test));
        let attribute = |name: &str| event.attributes.get(name).and_then(|v| v.as_str()).unwrap_or_default();
        let keep = until.is_none_or(|until| event.time_ns <= until)
            && matches("type", &|v| *v == event.kind)
            && matches("event", &|v| event.action == *v || event.action.starts_with(&format!("{v}:")))
            && matches("container", &|v| {
                event.kind == "container" && (event.id.starts_with(v.as_str()) || attribute("name") == v)
            })
            && matches("image", &|v| attribute("image") == v || event.id == *v || attribute("name") == v)
            && matches("label", &|v| match v.split_once('=') {
                Some((name, value)) => event.attributes.get(name).is_some_and(|have| have == value),
                None => event.attributes.contains_key(v),
            });
        futures::future::ready(keep)
    });
    let json = all.map(|event| event.json());
    Ok(match left {
        Some(left) => super::lines(json.take_until(tokio::time::sleep(left))),
        None => super::lines(json),
    })
}

const ROOMS: [&str; 16] = [
    "containers",
    "images",
    "exec",
    "volumes",
    "networks",
    "build",
    "swarm",
    "nodes",
    "services",
    "tasks",
    "secrets",
    "configs",
    "plugins",
    "distribution",
    "session",
    "grpc",
];

/// A route of the Engine API that is not built is 501 with its name; anything else is Docker's 404.
pub async fn unknown(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    let first = path.split('/').nth(1).unwrap_or_default();
    if ROOMS.contains(&first) {
        let message = format!("{method} {path} is not built yet");
        return json_with(StatusCode::NOT_IMPLEMENTED, &json!({"message": message}));
    }
    json_with(StatusCode::NOT_FOUND, &json!({"message": "page not found"}))
}
