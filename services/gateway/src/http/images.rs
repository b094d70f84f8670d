use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse as _;
use futures::StreamExt as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Answer, empty, ok};
use super::query::Query;
use super::{hijack, system};
use crate::app::{App, Failure, builds::has_label, view};

pub async fn list(State(app): State<Arc<App>>, query: Query) -> Answer {
    let filters = query.filters()?;
    let all = query.flag("all");
    let images = app.db.images().await?;
    let parents: std::collections::HashSet<String> = images.iter().map(|image| image.parent_id.clone()).collect();
    let created = |image: &metadata::Image| view::created_s(&crate::app::images::config_of(image));
    let mut bounds = (i64::MIN, i64::MAX);
    for name in filters.get("since").into_iter().flatten() {
        bounds.0 = bounds.0.max(created(&app.find_image(name).await?));
    }
    for name in filters.get("before").into_iter().flatten() {
        bounds.1 = bounds.1.min(created(&app.find_image(name).await?));
    }
    let dangling = filters.get("dangling").and_then(|v| v.first()).map(|v| matches!(v.as_str(), "true" | "1"));
    let mut rows = Vec::new();
    for mut image in images {
        let untagged = image.tags.is_empty();
        let is_dangling = untagged && !parents.contains(&image.id);
        if let Some(patterns) = filters.get("reference") {
            image.tags.retain(|tag| patterns.iter().any(|pattern| view::matches_reference(tag, pattern)));
            if image.tags.is_empty() {
                continue;
            }
        }
        let at = created(&image);
        let shown = (all || !untagged || is_dangling)
            && dangling.is_none_or(|wanted| wanted == is_dangling)
            && filters.get("label").is_none_or(|labels| labels.iter().all(|label| has_label(&image, label)))
            && at > bounds.0
            && at < bounds.1;
        if shown {
            rows.push((at, view::image_summary(&image, -1)));
        }
    }
    rows.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    ok(&rows.into_iter().map(|(_, row)| row).collect())
}

/// `/images/{name}/...`: a name holds slashes, so the last part decides.
pub async fn named(State(app): State<Arc<App>>, Path(rest): Path<String>, query: Query, request: Request) -> Answer {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let (name, verb) = rest.rsplit_once('/').unwrap_or((&rest, ""));
    match (method.clone(), verb) {
        (Method::GET, "json") => ok(&view::image_inspect(&app.find_image(name).await?)),
        (Method::GET, "history") => {
            let image = app.find_image(name).await?;
            let ancestors = app.ancestors(&image).await?;
            ok(&view::history(&image, &ancestors))
        }
        (Method::GET, "get") => save(app, vec![name.to_owned()]).await,
        (Method::POST, "tag") => {
            app.tag_image(name, &query.text("repo"), &query.text("tag")).await?;
            empty(StatusCode::CREATED)
        }
        (Method::POST, "push") => Err(Failure::not_built("pushing to a registry is not built yet").into()),
        (Method::DELETE, _) => {
            let done = app.remove_image(&rest, query.flag("force"), !query.flag("noprune")).await?;
            ok(&done.into())
        }
        _ => Ok(system::unknown(method, uri).await),
    }
}

pub async fn save_many(State(app): State<Arc<App>>, query: Query) -> Answer {
    save(app, query.all("names")).await
}

async fn save(app: Arc<App>, names: Vec<String>) -> Answer {
    let images = app.images_to_save(&names).await?;
    let (ticket, pending) = hijack::ticket(&app);
    let lease = app.lease("save").await?;
    let request = proto::Save { ticket: Some(ticket), images, lease: lease.clone() };
    let call = tokio::spawn({
        let app = app.clone();
        async move {
            let done = app.bus.call::<bus::calls::SyncSave>(&bus::Target::Sync, &request).await;
            app.end_lease(lease).await;
            done
        }
    });
    match pending.accept().await {
        Ok(duplex) => Ok(hijack::output(duplex.reader, "application/x-tar")),
        Err(error) => match call.await {
            Ok(Err(why)) => Err(why.into()),
            _ => Err(error.into()),
        },
    }
}

pub async fn load(State(app): State<Arc<App>>, query: Query, body: Body) -> Answer {
    let (ticket, pending) = hijack::ticket(&app);
    let lease = app.lease("load").await?;
    let quiet = query.flag("quiet");
    let load = proto::Load { ticket: Some(ticket), lease: lease.clone(), quiet };
    let (lines, receiver) = tokio::sync::mpsc::channel::<Value>(64);
    tokio::spawn(async move {
        let (progress, mut steps) = tokio::sync::mpsc::channel::<proto::Progress>(64);
        let sending = tokio::spawn(hijack::send_body(pending, body.into_data_stream()));
        let forward = tokio::spawn({
            let lines = lines.clone();
            async move {
                while let Some(step) = steps.recv().await {
                    if !quiet && lines.send(progress_line(&step)).await.is_err() {
                        return;
                    }
                }
            }
        });
        let done = app.load_images(load, progress).await;
        let _ = forward.await;
        sending.abort();
        app.end_lease(lease).await;
        match done {
            Ok(loaded) => {
                for line in loaded {
                    let _ = lines.send(json!({"stream": line})).await;
                }
            }
            Err(failure) => {
                let _ = lines.send(error_line(&failure.message, None)).await;
            }
        }
    });
    Ok(super::lines(ReceiverStream::new(receiver)))
}

fn progress_line(step: &proto::Progress) -> Value {
    if !step.stream.is_empty() {
        return json!({"stream": step.stream});
    }
    let mut line = json!({"status": step.status, "progressDetail": {}});
    if step.total > 0 || step.current > 0 {
        line["progressDetail"] = json!({"current": step.current, "total": step.total});
    }
    if !step.id.is_empty() {
        line["id"] = step.id.clone().into();
    }
    line
}

pub fn error_line(message: &str, code: Option<i32>) -> Value {
    match code.filter(|&code| code != 0) {
        Some(code) => json!({"errorDetail": {"code": code, "message": message}, "error": message}),
        None => json!({"errorDetail": {"message": message}, "error": message}),
    }
}

/// Import; pulling is the registry's part.
pub async fn create(State(app): State<Arc<App>>, query: Query, body: Body) -> Answer {
    if query.maybe("fromImage").is_some_and(|name| !name.is_empty()) {
        return Err(Failure::not_built(
            "pulling from a registry is not built yet: load the image from an archive with 'docker load'",
        )
        .into());
    }
    let name = match query.text("repo") {
        repo if repo.is_empty() => None,
        repo => {
            let name: model::ImageRef = repo.parse()?;
            Some(match query.text("tag") {
                tag if tag.is_empty() => name,
                tag => name.with_tag(&tag)?,
            })
        }
    };
    let source = query.text("fromSrc");
    let (ticket, pending) = hijack::ticket(&app);
    let lease = app.lease("import").await?;
    let url = if source == "-" { String::new() } else { source };
    let sending = url.is_empty().then(|| tokio::spawn(hijack::send_body(pending, body.into_data_stream())));
    let import = proto::Import { ticket: sending.is_some().then_some(ticket), url, lease: lease.clone() };
    let message = match query.text("message") {
        message if message.is_empty() => "Imported from -".to_owned(),
        message => message,
    };
    let done = app.import_image(import, name, &message, &query.all("changes")).await;
    app.end_lease(lease).await;
    if let Some(sending) = sending {
        sending.abort();
    }
    let id = done?;
    Ok(super::lines(futures::stream::iter([json!({"status": id})]).boxed()).into_response())
}

pub async fn prune(State(app): State<Arc<App>>, query: Query) -> Answer {
    let filters = query.filters()?;
    let all = filters.get("dangling").and_then(|v| v.first()).is_some_and(|v| matches!(v.as_str(), "false" | "0"));
    ok(&app.prune_images(all).await?)
}
