use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::json;

use super::answer::{Answer, ok};
use super::query::Query;
use crate::app::{App, Failure, filters};

pub async fn list(State(app): State<Arc<App>>, query: Query) -> Answer {
    ok(&app.list_networks(&query.filters(filters::OF_NETWORKS)?).await?)
}

pub async fn inspect(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    ok(&app.inspect_network(&id).await?)
}

/// The three that are always there cannot be removed.
pub async fn remove(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let network = app.find_network(&id).await?;
    let message = format!("{} is a pre-defined network and cannot be removed", network.name);
    Err(Failure::new(model::ErrorKind::Denied, message).into())
}

pub async fn prune(State(app): State<Arc<App>>, query: Query) -> Answer {
    query.filters(filters::OF_PRUNE)?;
    app.tell("network", "prune", "", serde_json::Map::from_iter([("reclaimed".to_owned(), "0".into())]));
    ok(&json!({"NetworksDeleted": null}))
}
