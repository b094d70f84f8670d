//! Cache mounts: listed, exported, imported, pruned.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use http::header;
use tokio_stream::wrappers::ReceiverStream;

use super::api::{About, Api, Parameter, ParameterKind};
use super::{JSON, sent};
use crate::app::overview::caches::{Cache, CachePrune, CachesPruned};
use crate::app::overview::page::List;
use crate::app::{App, filters};
use crate::http::answer::Answer;
use crate::http::builds::upload;
use crate::http::query::Query;

const TAR: &str = "application/x-tar";
const CACHE: Parameter = Parameter {
    name: "cache",
    about: "Id of the cache in Dockerfiles, or how its key begins; slashes as %2F.",
    kind: ParameterKind::Path,
};
const FILTERS: Parameter = Parameter {
    name: "filters",
    about: "JSON as the Engine API's: {\"id\": [\"npm\"]}; keys are id, sharing, worker, until and unused-for.",
    kind: ParameterKind::Text,
};

/// Adds the routes of caches to the table.
pub fn add_to(api: Api) -> Api {
    let list = About {
        summary: "What cache mounts keep, the one used last first.",
        parameters: &[FILTERS],
        content_type: JSON,
        refusals: &[400, 503],
    };
    let one = About { summary: "One cache.", parameters: &[CACHE], content_type: JSON, refusals: &[400, 404, 503] };
    let content = About {
        summary: "The files of a cache as a tar.",
        parameters: &[CACHE],
        content_type: TAR,
        refusals: &[400, 404, 503],
    };
    let import = About {
        summary: "Makes the tar in the body the content of a cache, which may be new. Steps that begin later find it.",
        parameters: &[
            Parameter { name: "id", about: "Id of the cache in Dockerfiles.", kind: ParameterKind::Text },
            Parameter {
                name: "sharing",
                about: "shared (when absent), locked, or private: a cache apart from the other two.",
                kind: ParameterKind::Text,
            },
        ],
        content_type: JSON,
        refusals: &[400, 409, 503],
    };
    let prune = About {
        summary: "Removes caches that no running build may use, with the workers' copies: those that no step has used for a \
                  week, with `all`, names or filters also others.",
        parameters: &[
            Parameter { name: "name", about: "Id of a cache, or how its key begins.", kind: ParameterKind::Texts },
            FILTERS,
            Parameter { name: "all", about: "Also those that were used lately.", kind: ParameterKind::Flag },
            Parameter { name: "dry-run", about: "Say what would go; nothing goes.", kind: ParameterKind::Flag },
        ],
        content_type: JSON,
        refusals: &[400, 404, 503],
    };
    api.get::<List<Cache>, _, _>("/boxyard/v1/caches", &list, self::list)
        .get::<Cache, _, _>("/boxyard/v1/caches/{cache}", &one, self::one)
        .get::<String, _, _>("/boxyard/v1/caches/{cache}/content", &content, export)
        // What is done to all of them has no path that a name could have.
        .answered::<Cache, _, _>("/boxyard/v1/caches", &import, self::import)
        .deleted::<CachesPruned, _, _>("/boxyard/v1/caches", &prune, self::prune)
}

async fn list(State(app): State<Arc<App>>, query: Query) -> Answer {
    sent(&app.cache_list(&query.filters(filters::OF_CACHES)?).await?)
}

async fn one(State(app): State<Arc<App>>, Path(cache): Path<String>) -> Answer {
    sent(&app.cache_shown(&cache).await?)
}

async fn export(State(app): State<Arc<App>>, Path(cache): Path<String>) -> Answer {
    let tar = app.export_cache_mount(&cache).await?;
    let body = Body::from_stream(ReceiverStream::new(tar));
    Ok(([(header::CONTENT_TYPE, TAR), (header::CACHE_CONTROL, "no-store")], body).into_response())
}

async fn import(State(app): State<Arc<App>>, query: Query, body: Body) -> Answer {
    let (id, sharing) = (query.text("id"), query.maybe("sharing").unwrap_or("shared").to_owned());
    let lease = app.lease("cache-import").await?;
    let tar = upload(&app, body, &lease.id).await?;
    let stored = app.import_cache_mount((&id, &sharing), tar, &lease.id).await?;
    sent(&app.cache_shown(&stored.key).await?)
}

async fn prune(State(app): State<Arc<App>>, query: Query) -> Answer {
    let wanted = CachePrune {
        names: query.all("name"),
        filters: query.filters(filters::OF_CACHES)?,
        all: query.flag("all"),
        is_dry: query.flag("dry-run"),
    };
    sent(&app.prune_caches(&wanted).await?)
}
