use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::Value;

use super::answer::{Answer, empty, json_with, ok};
use super::query::{Query, json_body};
use crate::app::{App, Failure, filters};

pub async fn list(State(app): State<Arc<App>>, query: Query) -> Answer {
    ok(&app.list_volumes(&query.filters(filters::OF_VOLUMES)?).await?)
}

pub async fn create(State(app): State<Arc<App>>, body: Bytes) -> Answer {
    let body = json_body(&body)?;
    let driver = body["Driver"].as_str().unwrap_or_default();
    if !matches!(driver, "" | "local" | "default") {
        return Err(Failure::not_found(format!(
            "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
        ))
        .into());
    }
    let map = |key: &str| {
        let pairs = body[key].as_object().cloned().unwrap_or_default();
        pairs.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))).collect()
    };
    let spec = proto::VolumeSpec {
        name: body.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        labels: map("Labels"),
        options: map("DriverOpts"),
    };
    Ok(json_with(StatusCode::CREATED, &app.create_volume(spec).await?))
}

pub async fn inspect(State(app): State<Arc<App>>, Path(name): Path<String>) -> Answer {
    ok(&app.inspect_volume(&name).await?)
}

pub async fn remove(State(app): State<Arc<App>>, Path(name): Path<String>, query: Query) -> Answer {
    app.remove_volume(&name, query.flag("force")).await?;
    empty(StatusCode::NO_CONTENT)
}

pub async fn prune(State(app): State<Arc<App>>, query: Query) -> Answer {
    ok(&app.prune_volumes(&query.filters(filters::OF_VOLUME_PRUNE)?).await?)
}
