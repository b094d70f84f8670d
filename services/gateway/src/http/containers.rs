use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use bus::calls;
use http::{HeaderValue, StatusCode};
use proto::ContainerState;
use serde_json::{Value, json};

use super::answer::{Answer, empty, json_with, ok};
use super::hijack;
use super::query::{Query, json_body};
use super::version::Version;
use crate::app::commit::Commit;
use crate::app::containers::is_up;
use crate::app::list::Shown;
use crate::app::stats::Stats;
use crate::app::wait::Condition;
use crate::app::{App, Failure, Outcome, filters, view};

const STATS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

pub async fn create(State(app): State<Arc<App>>, query: Query, body: Bytes) -> Answer {
    if body.is_empty() {
        return Err(Failure::invalid("invalid JSON: got EOF while reading request body").into());
    }
    let raw = json_body(&body)?;
    if !raw.is_object() {
        return Err(Failure::invalid("config cannot be empty in order to create a container").into());
    }
    let created = app.create_container(query.maybe("name").map(str::to_owned), query.platform()?, &raw).await?;
    Ok(json_with(StatusCode::CREATED, &json!({"Id": created.id, "Warnings": created.warnings})))
}

pub async fn list(State(app): State<Arc<App>>, query: Query) -> Answer {
    let filters = query.filters(filters::OF_CONTAINERS)?;
    let limit = query.number::<i64>("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let shown = Shown { all: query.flag("all"), limit, size: query.flag("size") };
    ok(&app.list_containers(&filters, shown).await?)
}

pub async fn inspect(State(app): State<Arc<App>>, Path(id): Path<String>, version: Version, query: Query) -> Answer {
    let mut container = app.inspect_container(&id, query.flag("size")).await?;
    version.container(&mut container);
    ok(&container)
}

pub async fn start(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    app.start_container(&id).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn stop(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    app.stop_container(&id, query.text("signal"), query.number("t")?).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn restart(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    app.restart_container(&id, query.text("signal"), query.number("t")?).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn kill(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let signal = query.maybe("signal").filter(|signal| !signal.is_empty()).unwrap_or("SIGKILL");
    app.kill_container(&id, signal.to_owned()).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn pause(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    app.pause_container(&id).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn unpause(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    app.unpause_container(&id).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn rename(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    app.rename_container(&id, &query.text("name")).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn remove(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    if query.flag("link") {
        return Err(Failure::not_built("links are not built").into());
    }
    app.remove_container(&id, query.flag("force"), query.flag("v")).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn resize(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let container = app.find_container(&id).await?;
    let (height, width) = size_of_terminal(&query)?;
    let size = proto::TerminalSize { id: container.id.clone(), exec_id: String::new(), height, width };
    app.node_call::<calls::Resize>(&container.node_id, &size).await?;
    app.tell_container(&container, "resize", &[("height", &height.to_string()), ("width", &width.to_string())]);
    empty(StatusCode::OK)
}

/// `h` and `w` of a terminal, in characters.
pub fn size_of_terminal(query: &Query) -> Outcome<(u32, u32)> {
    let read = |key: &str, name: &str| {
        let text = query.text(key);
        text.parse().map_err(|_| Failure::invalid(format!("invalid resize {name} \"{text}\": invalid syntax")))
    };
    Ok((read("h", "height")?, read("w", "width")?))
}

/// The headers go out at once: the client starts the container when it has them.
pub async fn wait(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let condition = match query.maybe("condition").unwrap_or("") {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Failure::invalid(format!("invalid condition: \"{other}\"")).into()),
    };
    let changed = app.changed.subscribe();
    let container = app.find_container(&id).await?;
    let waited = app.wait_container(container, condition, changed);
    let body = futures::stream::once(async move {
        let line = json!({"StatusCode": waited.await});
        Ok::<_, std::convert::Infallible>(format!("{line}\n"))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert("Content-Type", HeaderValue::from_static("application/json"));
    Ok(response)
}

pub async fn attach(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query, mut request: Request) -> Answer {
    let container = app.find_container(&id).await?;
    if view::status_of(&container).state() == ContainerState::Paused {
        return Err(Failure::conflict(format!("container {id} is paused, unpause the container before attach")).into());
    }
    let upgrade = hijack::upgrade_of(&mut request);
    let (ticket, pending) = hijack::ticket(&app);
    let attach = proto::ContainerAttach {
        id: container.id.clone(),
        ticket: Some(ticket),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.text("detachKeys"),
    };
    let call = app.node_call::<calls::ContainerAttach>(&container.node_id, &attach);
    let accept = async { pending.accept().await.map_err(Failure::from) };
    let (_, duplex) = tokio::try_join!(call, accept)?;
    app.tell_container(&container, "attach", &[]);
    Ok(hijack::join(upgrade, duplex, content_type(&container)))
}

fn content_type(container: &metadata::Container) -> &'static str {
    if view::spec_of(container).tty { hijack::RAW } else { hijack::MULTIPLEXED }
}

pub async fn logs(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let container = app.find_container(&id).await?;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Failure::invalid("Bad parameters: you must choose at least one stream").into());
    }
    let (ticket, pending) = hijack::ticket(&app);
    let logs = proto::ContainerLogs {
        id: container.id.clone(),
        ticket: Some(ticket),
        follow: query.flag("follow"),
        stdout,
        stderr,
        since_ns: super::nanoseconds(&query, "since")?,
        until_ns: super::nanoseconds(&query, "until")?,
        tail: query.maybe("tail").and_then(|tail| tail.parse().ok()).filter(|&n: &i64| n >= 0).unwrap_or(-1),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
    };
    stream(&app, &container, content_type(&container), pending, async |app, node| {
        app.node_call::<calls::ContainerLogs>(node, &logs).await.map(drop)
    })
    .await
}

/// Streams what the node sends; the call itself may go on as long as the stream does.
async fn stream(
    app: &Arc<App>,
    container: &metadata::Container,
    content_type: &'static str,
    pending: streams::Pending,
    call: impl AsyncFnOnce(&App, &str) -> Outcome<()>,
) -> Answer {
    let called = call(app, &container.node_id);
    let accepted = pending.accept();
    tokio::pin!(called, accepted);
    let duplex = tokio::select! {
        done = &mut called => {
            done?;
            accepted.await?
        }
        duplex = &mut accepted => duplex?,
    };
    Ok(hijack::output_held(duplex, content_type))
}

pub async fn export(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let container = app.find_container(&id).await?;
    let (ticket, pending) = hijack::ticket(&app);
    let request = proto::ContainerExport { id: container.id.clone(), ticket: Some(ticket) };
    let (bus, node) = (app.bus.clone(), bus::Target::Node(container.node_id.clone()));
    let call = tokio::spawn(async move { bus.call::<calls::ContainerExport>(&node, &request).await });
    let reader = hijack::accept_or_fail(pending, call).await?;
    app.tell_container(&container, "export", &[]);
    hijack::output_or_fail(reader, "application/octet-stream").await
}

fn stat_header(stat: &proto::PathStat) -> HeaderValue {
    let json = json!({"name": stat.name, "size": stat.size, "mode": stat.mode, "mtime": engine_api::time(stat.mtime_ns), "linkTarget": stat.link_target});
    let text = base64::engine::general_purpose::STANDARD.encode(json.to_string());
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn archive_path(query: &Query) -> Outcome<String> {
    match query.text("path") {
        path if path.is_empty() => Err(Failure::invalid("bad parameter: path cannot be empty")),
        path => Ok(path),
    }
}

pub async fn archive_stat(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let path = archive_path(&query)?;
    let container = app.find_container(&id).await?;
    let request = proto::ArchiveStat { id: container.id, path, name: id };
    let stat = app.node_call::<calls::ArchiveStat>(&container.node_id, &request).await?;
    let mut response = StatusCode::OK.into_response();
    response.headers_mut().insert("X-Docker-Container-Path-Stat", stat_header(&stat));
    Ok(response)
}

pub async fn archive_get(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let path = archive_path(&query)?;
    let container = app.find_container(&id).await?;
    let (ticket, pending) = hijack::ticket(&app);
    let request = proto::ArchiveGet { id: container.id.clone(), path, ticket: Some(ticket), name: id };
    app.tell_container(&container, "archive-path", &[]);
    let call = app.node_call::<calls::ArchiveGet>(&container.node_id, &request);
    let accept = async { pending.accept().await.map_err(Failure::from) };
    let (stat, duplex) = tokio::try_join!(call, accept)?;
    let mut response = hijack::output(duplex.reader, "application/x-tar");
    response.headers_mut().insert("X-Docker-Container-Path-Stat", stat_header(&stat));
    Ok(response)
}

pub async fn archive_put(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query, body: Body) -> Answer {
    let found = match archive_path(&query) {
        Ok(path) => app.find_container(&id).await.map(|container| (path, container)),
        Err(failure) => Err(failure),
    };
    let (path, container) = match found {
        Ok(found) => found,
        Err(failure) => {
            hijack::drain(body.into_data_stream()).await;
            return Err(failure.into());
        }
    };
    let (ticket, pending) = hijack::ticket(&app);
    let request = proto::ArchivePut {
        id: container.id.clone(),
        path,
        ticket: Some(ticket),
        no_overwrite_dir_non_dir: query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: query.flag("copyUIDGID"),
        name: id,
    };
    let mut body = body.into_data_stream();
    let done = {
        let sending = hijack::send_body(pending, &mut body);
        let call = app.node_call::<calls::ArchivePut>(&container.node_id, &request);
        tokio::pin!(sending, call);
        tokio::select! {
            done = &mut call => done,
            _ = &mut sending => call.await,
        }
    };
    if let Err(failure) = done {
        hijack::drain(body).await;
        return Err(failure.into());
    }
    app.tell_container(&container, "extract-to-dir", &[]);
    empty(StatusCode::OK)
}

pub async fn top(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let container = app.find_container(&id).await?;
    if !is_up(view::status_of(&container).state()) {
        return Err(Failure::conflict(format!("container {} is not running", container.id)).into());
    }
    let request = proto::TopRequest { id: container.id.clone(), ps_args: query.text("ps_args") };
    let top = app.node_call::<calls::ContainerTop>(&container.node_id, &request).await?;
    app.tell_container(&container, "top", &[]);
    let rows: Vec<Vec<String>> = top.processes.into_iter().map(|row| row.fields).collect();
    ok(&json!({"Titles": top.titles, "Processes": rows}))
}

pub async fn changes(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let container = app.find_container(&id).await?;
    let mut all: Vec<Value> = Vec::new();
    let mut after_path = String::new();
    loop {
        let request = proto::ChangesRequest { id: container.id.clone(), after_path };
        let page = app.node_call::<calls::ContainerChanges>(&container.node_id, &request).await?;
        after_path = page.changes.last().map(|change| change.path.clone()).unwrap_or_default();
        all.extend(page.changes.into_iter().map(|change| json!({"Path": change.path, "Kind": change.kind})));
        if !page.more || after_path.is_empty() {
            break;
        }
    }
    ok(&if all.is_empty() { Value::Null } else { all.into() })
}

pub async fn commit(State(app): State<Arc<App>>, query: Query, body: Bytes) -> Answer {
    let name = match query.text("repo") {
        repo if repo.is_empty() => None,
        repo => Some(super::images::with_tag(&repo, &query.text("tag"))?),
    };
    let commit = Commit {
        name,
        comment: query.text("comment"),
        author: query.text("author"),
        pause: query.flag_or("pause", true),
        changes: query.all("changes"),
        config: json_body(&body)?,
    };
    let id = app.commit(&query.text("container"), commit).await?;
    Ok(json_with(StatusCode::CREATED, &json!({"Id": id})))
}

pub async fn prune(State(app): State<Arc<App>>, query: Query) -> Answer {
    ok(&app.prune_containers(&query.filters(filters::OF_PRUNE)?).await?)
}

/// POST /containers/{id}/update: limits and restart policy of a container that may be running.
pub async fn update(State(app): State<Arc<App>>, Path(id): Path<String>, body: Bytes) -> Answer {
    app.update_container(&id, &json_body(&body)?).await?;
    ok(&json!({"Warnings": null}))
}

/// One reading, or one a second while the client listens and the container runs.
pub async fn stats(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let container = app.find_container(&id).await?;
    let (stream, one_shot) = (query.flag_or("stream", true), query.flag("one-shot"));
    let mut stats = Stats::new(container.id, container.node_id);
    let first = stats.next(&app).await?;
    if !stream && one_shot {
        return ok(&first);
    }
    if !stream {
        tokio::time::sleep(STATS_INTERVAL).await;
        return ok(&stats.next(&app).await?);
    }
    let readings = futures::stream::unfold((app, stats, Some(first)), |(app, mut stats, first)| async move {
        let reading = match first {
            Some(first) => first,
            None => {
                tokio::time::sleep(STATS_INTERVAL).await;
                // It is gone, or its node is: the stream ends.
                stats.next(&app).await.ok()?
            }
        };
        Some((reading, (app, stats, None)))
    });
    Ok(super::lines(readings))
}
