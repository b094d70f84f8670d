use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse as _;
use futures::StreamExt as _;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Answer, empty, ok};
use super::query::Query;
use super::version::Version;
use super::{hijack, registry, system};
use crate::app::list::ShownImages;
use crate::app::{App, Failure, filters, view};

pub async fn list(State(app): State<Arc<App>>, version: Version, query: Query) -> Answer {
    let filters = query.filters(filters::OF_IMAGES)?;
    let shown = ShownImages {
        all: query.flag("all"),
        shared_size: query.flag("shared-size"),
        containers: version.counts_containers(),
    };
    let mut rows = app.list_images(&filters, shown).await?;
    version.images(&mut rows);
    ok(&rows)
}

/// `/images/{name}/...`: a name holds slashes, so the last part decides.
pub async fn named(
    State(app): State<Arc<App>>,
    Path(rest): Path<String>,
    version: Version,
    query: Query,
    request: Request,
) -> Answer {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let (name, verb) = rest.rsplit_once('/').unwrap_or((&rest, ""));
    match (method.clone(), verb) {
        (Method::GET, "json") => {
            let platform = query.image_platform("platform")?;
            if platform.is_some() && query.flag("manifests") {
                let words = "conflicting options: manifests and platform options cannot both be set";
                return Err(Failure::invalid(words).into());
            }
            let mut image = view::image_inspect(&app.find_image_of(name, platform.as_ref()).await?);
            version.image(&mut image);
            ok(&image)
        }
        (Method::GET, "history") => {
            let image = app.find_image_of(name, query.image_platform("platform")?.as_ref()).await?;
            let ancestors = app.ancestors(&image).await?;
            ok(&view::history(&image, &ancestors))
        }
        (Method::GET, "get") => save(app, vec![name.to_owned()], &query).await,
        (Method::POST, "tag") => {
            app.tag_image(name, &query.text("repo"), &query.text("tag")).await?;
            empty(StatusCode::CREATED)
        }
        (Method::POST, "push") => registry::push(app, name, &query, request).await,
        (Method::DELETE, _) => {
            let platforms = query.all("platforms");
            if platforms.len() > 1 {
                return Err(Failure::invalid("multiple platforms are not supported").into());
            }
            if let Some(platform) = query.image_platform("platforms")? {
                app.check_only_platform(&rest, &platform).await?;
            }
            let done = app.remove_image(&rest, query.flag("force"), !query.flag("noprune")).await?;
            ok(&done.into())
        }
        _ => Ok(system::unknown(method, uri).await),
    }
}

pub async fn save_many(State(app): State<Arc<App>>, query: Query) -> Answer {
    save(app, query.all("names"), &query).await
}

async fn save(app: Arc<App>, names: Vec<String>, query: &Query) -> Answer {
    let images = app.images_to_save(&names, query.image_platform("platform")?.as_ref()).await?;
    for image in &images {
        if let Some(image) = app.db.image(&image.id).await? {
            app.tell_image(&image, "save", &image.id);
        }
    }
    let (ticket, pending) = hijack::ticket(&app);
    let lease = app.lease("save").await?;
    app.store_configs(&images, &lease.id).await?;
    let request = proto::Save { ticket: Some(ticket), images, lease: lease.id.clone() };
    let call = tokio::spawn({
        let app = app.clone();
        async move {
            let done = app.bus.call::<bus::calls::SyncSave>(&bus::Target::Sync, &request).await;
            drop(lease);
            done
        }
    });
    let reader = hijack::accept_or_fail(pending, call).await?;
    hijack::output_or_fail(reader, "application/x-tar").await
}

pub async fn load(State(app): State<Arc<App>>, query: Query, body: Body) -> Answer {
    let platform = query.image_platform("platform")?;
    let (ticket, pending) = hijack::ticket(&app);
    let lease = app.lease("load").await?;
    let quiet = query.flag("quiet");
    let load = proto::Load { ticket: Some(ticket), lease: lease.id.clone(), quiet };
    let (lines, receiver) = tokio::sync::mpsc::channel::<Value>(64);
    tokio::spawn(async move {
        let _lease = lease;
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
        let done = app.load_images(load, platform.as_ref(), progress).await;
        let _ = forward.await;
        sending.abort();
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

/// A pull or an import.
pub async fn create(State(app): State<Arc<App>>, query: Query, headers: HeaderMap, body: Body) -> Answer {
    if let Some(image) = query.maybe("fromImage").filter(|image| !image.is_empty()) {
        return registry::pull(&app, image, &query, &headers).await;
    }
    let source = query.text("fromSrc");
    if source.is_empty() {
        return Err(Failure::invalid("neither fromImage nor fromSrc was given").into());
    }
    let name = match query.text("repo") {
        repo if repo.is_empty() => None,
        repo => Some(with_tag(&repo, &query.text("tag"))?),
    };
    let (ticket, pending) = hijack::ticket(&app);
    let lease = app.lease("import").await?;
    let url = if source == "-" { String::new() } else { source };
    let sending = url.is_empty().then(|| tokio::spawn(hijack::send_body(pending, body.into_data_stream())));
    let message = match query.text("message") {
        message if message.is_empty() => format!("Imported from {}", if url.is_empty() { "-" } else { &url }),
        message => message,
    };
    let import = proto::Import { ticket: sending.is_some().then_some(ticket), url, lease: lease.id.clone() };
    let done = app.import_image(import, name, &message, &query.all("changes")).await;
    if let Some(sending) = sending {
        sending.abort();
    }
    let id = done?;
    Ok(super::lines(futures::stream::iter([json!({"status": id})]).boxed()).into_response())
}

/// A name from `repo` (which may carry a tag) and a tag or digest of its own.
pub fn with_tag(repo: &str, tag: &str) -> Result<model::ImageRef, Failure> {
    let name: model::ImageRef = repo.parse()?;
    match tag {
        "" => Ok(name),
        digest if digest.contains(':') => {
            Ok(name.with_digest(digest.parse().map_err(|_| Failure::invalid("invalid reference format"))?))
        }
        tag => Ok(name.with_tag(tag)?),
    }
}

pub async fn prune(State(app): State<Arc<App>>, query: Query) -> Answer {
    ok(&app.prune_images(&query.filters(filters::OF_IMAGE_PRUNE)?).await?)
}
