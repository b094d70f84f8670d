//! `POST /build?version=2`: how the docker command builds by BuildKit without buildx. The client has a session, which the
//! build asks for files; what the build tells comes as lines of JSON with BuildKit's messages in base64.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::moby::buildkit::v1 as wire;
use http::StatusCode;
use prost::Message as _;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::run::{Build, Told};
use super::solve::Solve;
use crate::app::{App, Failure, Outcome};
use crate::http::answer::{Answer, empty};
use crate::http::builds::upload;
use crate::http::images::error_line;
use crate::http::query::Query;

/// Begins the id of a request that only brings the context of another one.
const UPLOAD: &str = "upload-request:";
/// As a context: it comes by such a request.
const UPLOADED: &str = "upload-request";
/// As a context: the session has it.
const OF_SESSION: &str = "client-session";

pub async fn build(app: Arc<App>, user: String, query: Query, body: Body) -> Answer {
    let client_id = query.text("buildid");
    if let Some(id) = client_id.strip_prefix(UPLOAD) {
        return bring(&app, id, body).await;
    }
    let mut solve = Solve { user, ..solve(&query)? };
    let remote = query.text("remote");
    let mut job = app.begin_job(&client_id, remote == UPLOADED);
    let mut lease = None;
    match remote.as_str() {
        OF_SESSION => {}
        UPLOADED => {
            let brought = job.upload().await?;
            solve.context = Some(brought.context);
            lease = Some(brought.lease);
        }
        "" => {
            let held = app.lease("build").await?;
            solve.context = Some(upload(&app, body, &held.id).await?);
            lease = Some(held);
        }
        url => drop(solve.attrs.insert("context".to_owned(), url.to_owned())),
    }
    let options = proto::BuildOptions { squash: query.flag("squash"), ..solve.options(&app)? };
    let makes_image = options.outputs.iter().any(|output| output.r#type == "image");
    let quiet = query.flag("q");
    let mut build = Build::begin(&app, &options, (None, lease)).await?;
    let (lines, receiver) = tokio::sync::mpsc::channel::<Value>(64);
    tokio::spawn(async move {
        loop {
            let told = tokio::select! {
                told = build.next() => told,
                () = lines.closed() => return,
                () = job.cancelled() => {
                    let _ = lines.send(error_line("context canceled", None)).await;
                    return;
                }
            };
            let line = match told {
                Some(Told::Status(status)) => {
                    json!({"id": "moby.buildkit.trace", "aux": STANDARD.encode(status.encode_to_vec())})
                }
                // The client prints the text as it is, and keeps the steps for the case of a failure.
                Some(Told::Built { image_id, .. }) if makes_image && quiet => {
                    json!({"stream": format!("{image_id}\n")})
                }
                Some(Told::Built { image_id, .. }) if makes_image => {
                    json!({"id": "moby.image.id", "aux": {"ID": image_id}})
                }
                Some(Told::Failed(failed)) => error_line(&failed.failure.message, None),
                Some(Told::Built { .. }) | None => return,
            };
            if lines.send(line).await.is_err() {
                return;
            }
        }
    });
    Ok(crate::http::lines(ReceiverStream::new(receiver)))
}

/// The context of a build that waits for it.
async fn bring(app: &Arc<App>, id: &str, body: Body) -> Answer {
    let bringing = app.job_that_waits(id).await?;
    let lease = app.lease("build").await?;
    let context = upload(app, body, &lease.id).await?;
    bringing.bring(context, lease);
    empty(StatusCode::OK)
}

/// `POST /build/cancel?id=BUILDID`. Docker answers alike for a build that it does not know.
pub async fn cancel(State(app): State<Arc<App>>, query: Query) -> Answer {
    let id = query.text("id");
    if id.is_empty() {
        return Err(Failure::invalid("build ID not provided").into());
    }
    app.cancel_job(&id);
    empty(StatusCode::OK)
}

/// The query as attributes of the frontend and an exporter, as dockerd makes them.
fn solve(query: &Query) -> Outcome<Solve> {
    let mut attrs = HashMap::new();
    let mut set = |key: &str, value: String| drop(attrs.insert(key.to_owned(), value));
    for (key, attr) in [("target", "target"), ("dockerfile", "filename"), ("platform", "platform")] {
        if let Some(value) = query.maybe(key).filter(|value| !value.is_empty()) {
            set(attr, value.to_owned());
        }
    }
    for (prefix, key) in [("build-arg", "buildargs"), ("label", "labels")] {
        for (name, value) in map(query, key)? {
            // An argument without a value is one that the client does not have.
            if let Some(value) = value.as_str() {
                set(&format!("{prefix}:{name}"), value.to_owned());
            }
        }
    }
    if query.flag("nocache") {
        set("no-cache", String::new());
    }
    set("image-resolve-mode", if query.flag("pull") { "pull" } else { "default" }.to_owned());
    let network = query.text("networkmode");
    match network.as_str() {
        "" | "default" => {}
        "host" | "none" => set("force-network-mode", network.clone()),
        other => return Err(Failure::invalid(format!("network mode {other:?} not supported by buildkit"))),
    }
    let hosts = query.all("extrahosts").into_iter().map(|host| match host.split_once(':') {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => Ok(format!("{name}={address}")),
        _ => Err(Failure::invalid(format!("invalid host {host}"))),
    });
    set("add-hosts", hosts.collect::<Outcome<Vec<_>>>()?.join(","));
    if let Some(bytes) = query.number::<u64>("shmsize")?.filter(|bytes| *bytes > 0) {
        set("shm-size", bytes.to_string());
    }
    set("ulimit", ulimits(query)?);
    let cache_from: Vec<String> = json_of(query, "cachefrom")?.unwrap_or_default();
    set("cache-from", cache_from.join(","));
    let inline =
        attrs.get("build-arg:BUILDKIT_INLINE_CACHE").is_some_and(|value| matches!(value.as_str(), "1" | "true"));
    let inline = inline.then(|| wire::CacheOptionsEntry { r#type: "inline".to_owned(), attrs: HashMap::new() });
    Ok(Solve {
        attrs,
        exporters: exporters(query)?,
        cache: wire::CacheOptions { exports: inline.into_iter().collect(), ..Default::default() },
        session: query.text("session"),
        entitlements: if network == "host" { vec!["network.host".to_owned()] } else { Vec::new() },
        ..Solve::default()
    })
}

/// What the client wants of the build: an image with its tags where it does not say.
fn exporters(query: &Query) -> Outcome<Vec<wire::Exporter>> {
    let outputs: Vec<Value> = json_of(query, "outputs")?.unwrap_or_default();
    let mut exporters = match outputs.as_slice() {
        [] => vec![wire::Exporter { r#type: "moby".to_owned(), ..Default::default() }],
        [output] => match output["Type"].as_str().unwrap_or_default() {
            "cacheonly" => Vec::new(),
            kind => {
                let attrs = output["Attrs"].as_object().into_iter().flatten();
                let attrs = attrs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
                vec![wire::Exporter { r#type: kind.to_owned(), attrs: attrs.collect() }]
            }
        },
        _ => return Err(Failure::invalid("multiple outputs not supported")),
    };
    let tags: Vec<String> = query.all("t").into_iter().filter(|tag| !tag.is_empty()).collect();
    for exporter in &mut exporters {
        if matches!(exporter.r#type.as_str(), "moby" | "image") && !tags.is_empty() {
            exporter.attrs.insert("name".to_owned(), tags.join(","));
        }
    }
    Ok(exporters)
}

fn ulimits(query: &Query) -> Outcome<String> {
    let ulimits: Vec<Value> = json_of(query, "ulimits")?.unwrap_or_default();
    let text = |ulimit: &Value| {
        format!("{}={}:{}", ulimit["Name"].as_str().unwrap_or_default(), ulimit["Soft"], ulimit["Hard"])
    };
    Ok(ulimits.iter().map(text).collect::<Vec<_>>().join(","))
}

fn map(query: &Query, key: &str) -> Outcome<serde_json::Map<String, Value>> {
    Ok(json_of(query, key)?.unwrap_or_default())
}

fn json_of<T: serde::de::DeserializeOwned>(query: &Query, key: &str) -> Outcome<Option<T>> {
    match query.maybe(key).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => {
            serde_json::from_str(text).map_err(|_| Failure::invalid(format!("error reading {key}: invalid JSON")))
        }
    }
}
