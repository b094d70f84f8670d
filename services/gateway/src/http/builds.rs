use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::State;
use futures::{StreamExt as _, TryStreamExt as _};
use http::HeaderMap;
use proto::build_log::What;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Answer, ok};
use super::credentials;
use super::images::error_line;
use super::peer::UserName;
use super::query::Query;
use crate::app::build_cache::{Keep, Prune};
use crate::app::build_log::BuildLogReader;
use crate::app::filters;
use crate::app::{App, Failure, Outcome, random_id};

pub async fn build(
    State(app): State<Arc<App>>,
    UserName(user): UserName,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    match query.maybe("version").unwrap_or("") {
        "" | "1" => {}
        "2" => return super::buildkit::docker::build(app, user, query, body).await,
        other => return Err(Failure::invalid(format!("invalid version {other:?}")).into()),
    }
    let mut options = proto::BuildOptions { user, ..options(&query)? };
    let lease = app.lease("build").await?;
    if options.remote.is_empty() {
        options.context = Some(upload(&app, body, &lease.id).await?);
    }
    let id = random_id()[..32].to_owned();
    let log = app.follow_build_log(&id).await?;
    app.queue_build(&id, &options, credentials::of_build(&headers)).await?;
    let (lines, mut receiver) = tokio::sync::mpsc::channel::<Line>(64);
    tokio::spawn(async move {
        follow(&app, &id, log, lines).await;
        // The context goes with its lease.
        drop(lease);
        app.end_build(&id, options.context.map(|context| context.digest)).await;
    });
    // A build that fails before it has said anything is answered as an error.
    let first = receiver.recv().await.transpose()?;
    let rest = ReceiverStream::new(receiver).filter_map(|line| futures::future::ready(line.ok()));
    Ok(super::lines(futures::stream::iter(first).chain(rest)))
}

/// Puts a context into the layer store. A client that broke off is told so, not the layer store's view of it.
pub async fn upload(app: &App, body: Body, lease: &str) -> Outcome<proto::Descriptor> {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = broken.clone();
    let sent = body.into_data_stream().inspect_err(move |_| seen.store(true, Ordering::SeqCst));
    let stored = app.store.upload(distribution::Body::wrap_stream(sent), Some(lease)).await;
    let (digest, size) = stored.map_err(|error| match broken.load(Ordering::SeqCst) {
        true => Failure::invalid("unexpected EOF"),
        false => error.into(),
    })?;
    Ok(proto::Descriptor { media_type: "application/x-tar".to_owned(), digest: digest.to_string(), size })
}

/// A line for the client, or why there will be none.
type Line = Result<Value, Failure>;

/// Passes the log on to the client until the build has ended; without a client the build is cancelled.
async fn follow(app: &App, id: &str, mut log: BuildLogReader, lines: tokio::sync::mpsc::Sender<Line>) {
    loop {
        let chunk = tokio::select! {
            chunk = log.next() => chunk,
            () = lines.closed() => return app.cancel_build(id).await,
        };
        let chunk = match chunk {
            Some(Ok(chunk)) => chunk,
            Some(Err(failure)) => {
                let _ = lines.send(Ok(error_line(&failure.message, None))).await;
                return app.cancel_build(id).await;
            }
            None => return,
        };
        let line = match chunk.what {
            Some(What::Error(message)) if chunk.number == 0 => Err(Failure::invalid(message)),
            Some(What::Error(message)) => Ok(error_line(&message, Some(chunk.error_code))),
            Some(What::Stream(text)) => {
                app.note_step(id, &text);
                Ok(json!({"stream": text}))
            }
            Some(What::AuxId(image)) => Ok(json!({"aux": {"ID": image}})),
            Some(What::StatusJson(text)) => Ok(serde_json::from_str(&text).unwrap_or(json!({"stream": text}))),
            // Steps are for Boxyard's own clients.
            Some(What::End(_) | What::Trace(_)) | None => continue,
        };
        if lines.send(line).await.is_err() {
            return app.cancel_build(id).await;
        }
    }
}

fn options(query: &Query) -> Outcome<proto::BuildOptions> {
    let mut tags = Vec::new();
    for tag in query.all("t").iter().filter(|tag| !tag.is_empty()) {
        let name: model::ImageRef = tag.parse()?;
        tags.push(name.or_latest().familiar());
    }
    let map = |key: &str| -> Outcome<serde_json::Map<String, Value>> {
        match query.maybe(key).filter(|text| !text.is_empty()) {
            None => Ok(Default::default()),
            Some(text) => match serde_json::from_str(text) {
                Ok(Value::Object(map)) => Ok(map),
                Ok(Value::Null) => Ok(Default::default()),
                _ => Err(Failure::invalid(format!("error reading {key}: invalid JSON"))),
            },
        }
    };
    let isolation = query.text("isolation");
    if !matches!(isolation.as_str(), "" | "default") {
        return Err(Failure::invalid(format!("Unsupported isolation: {isolation:?}")));
    }
    query.platform()?;
    let platform = query.text("platform");
    let args = map("buildargs")?;
    let text = |map: serde_json::Map<String, Value>| {
        map.into_iter()
            .filter_map(|(k, v)| Some((k, v.as_str()?.to_owned())))
            .collect::<std::collections::HashMap<_, _>>()
    };
    let list = |key: &str| -> Vec<String> {
        query.maybe(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    let resources = proto::Resources {
        memory_bytes: query.number("memory")?.unwrap_or(0),
        memory_swap_bytes: query.number("memswap")?.unwrap_or(0),
        cpu_shares: query.number("cpushares")?.unwrap_or(0),
        cpu_period_us: query.number("cpuperiod")?.unwrap_or(0),
        cpu_quota_us: query.number("cpuquota")?.unwrap_or(0),
        cpuset_cpus: query.text("cpusetcpus"),
        cpuset_mems: query.text("cpusetmems"),
        cgroup_parent: query.text("cgroupparent"),
        ..Default::default()
    };
    Ok(proto::BuildOptions {
        dockerfile: query.text("dockerfile"),
        tags,
        unset_build_args: args.iter().filter(|(_, v)| v.is_null()).map(|(k, _)| k.clone()).collect(),
        build_args: text(args),
        labels: text(map("labels")?),
        target: query.text("target"),
        network_mode: query.text("networkmode"),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        remove: query.flag_or("rm", true),
        force_remove: query.flag("forcerm"),
        quiet: query.flag("q"),
        squash: query.flag("squash"),
        resources: Some(resources),
        extra_hosts: query.all("extrahosts"),
        platform,
        remote: query.text("remote"),
        context: None,
        cache_from: list("cachefrom"),
        shm_bytes: query.number("shmsize")?.unwrap_or(0),
        security_opt: list("securityopt"),
        isolation,
        // Boxyard's own, which no client of Docker sends.
        worker_labels: text(map("workerlabels")?),
        priority: query.number("priority")?.unwrap_or(0),
        ..Default::default()
    })
}

/// The classic builder's cache is its intermediate images, which an image prune takes; this is the graph builder's.
/// `dry-run=1`, which is Boxyard's own, says what would go.
pub async fn prune(State(app): State<Arc<App>>, query: Query) -> Answer {
    let failed =
        |failure: Failure| Failure::new(failure.kind, format!("failed to prune build cache: {}", failure.message));
    let wanted = Prune {
        filters: query.filters(filters::OF_BUILD_PRUNE).map_err(failed)?,
        all: query.flag("all"),
        keep: kept(&query)?,
        is_dry: query.flag("dry-run"),
    };
    let pruned = app.prune_cache(&wanted).await.map_err(failed)?;
    let deleted = if pruned.keys.is_empty() { Value::Null } else { json!(pruned.keys) };
    ok(&json!({"CachesDeleted": deleted, "SpaceReclaimed": pruned.bytes}))
}

/// How much may stay; `keep-storage` became `reserved-space` in 1.48.
fn kept(query: &Query) -> Outcome<Keep> {
    let bytes = |key: &str| -> Outcome<u64> {
        match query.text(key) {
        text if text.is_empty() => Ok(0),
        text => text.parse().map_err(|_| {
            Failure::invalid(format!(
                "{key} is in bytes and expects an integer, got {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"
            ))
        }),
    }
    };
    Ok(Keep {
        reserved_bytes: bytes("reserved-space")?.max(bytes("keep-storage")?),
        max_used_bytes: bytes("max-used-space")?,
        min_free_bytes: bytes("min-free-space")?,
    })
}
