//! The build workers: shown, drained, labelled.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::Value;

use super::api::{About, Api, Parameter, ParameterKind};
use super::{JSON, sent, short};
use crate::app::overview::page::List;
use crate::app::overview::workers::Worker;
use crate::app::{App, Failure, Outcome};
use crate::http::answer::{Answer, empty};
use crate::http::query::json_body;

const ID: Parameter = Parameter { name: "worker", about: "Id of the build worker.", kind: ParameterKind::Path };

const fn of_one(summary: &'static str, refusals: &'static [u16]) -> About {
    About { summary, parameters: &[ID], content_type: JSON, refusals }
}

pub fn add_to(api: Api) -> Api {
    let drain = of_one("Has a worker take no new builds and steps; those that it has go on.", &[404, 503]);
    let undrain = of_one("Has a drained worker take builds again.", &[404, 503]);
    let labels = of_one(
        "Sets labels of a worker, and takes those away that are null: {\"labels\": {\"disk\": \"ssd\", \"zone\": null}}.",
        &[400, 404, 503],
    );
    api.get::<List<Worker>, _, _>("/boxyard/v1/workers", &short("The build workers."), list)
        .get::<Worker, _, _>("/boxyard/v1/workers/{worker}", &of_one("One build worker.", &[404, 503]), one)
        .post("/boxyard/v1/workers/{worker}/drain", &drain, self::drain)
        .post("/boxyard/v1/workers/{worker}/undrain", &undrain, self::undrain)
        .post("/boxyard/v1/workers/{worker}/labels", &labels, label)
}

async fn list(State(app): State<Arc<App>>) -> Answer {
    sent(&app.workers().await?)
}

async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    sent(&app.worker(&id).await?)
}

async fn drain(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    app.drain_worker(&id, true).await?;
    empty(StatusCode::NO_CONTENT)
}

async fn undrain(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    app.drain_worker(&id, false).await?;
    empty(StatusCode::NO_CONTENT)
}

async fn label(State(app): State<Arc<App>>, Path(id): Path<String>, body: Bytes) -> Answer {
    app.label_worker(&id, &changes(&json_body(&body)?)?).await?;
    empty(StatusCode::NO_CONTENT)
}

fn changes(body: &Value) -> Outcome<BTreeMap<String, Option<String>>> {
    let wrong = || Failure::invalid("write {\"labels\": {NAME: VALUE or null}}");
    let labels = body["labels"].as_object().ok_or_else(wrong)?;
    let change = |(name, value): (&String, &Value)| match value {
        Value::Null => Ok((name.clone(), None)),
        Value::String(text) => Ok((name.clone(), Some(text.clone()))),
        _ => Err(wrong()),
    };
    labels.iter().map(change).collect()
}
