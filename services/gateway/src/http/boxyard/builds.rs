//! What is remembered of builds, and what can be done to one by its id. An id may be cut as long as it names one build.

use std::sync::Arc;

use axum::extract::{Path, State};
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::json;

use super::api::{About, Api, Parameter, ParameterKind};
use super::{AFTER, JSON, LIMIT, page_of, sent};
use crate::app::filters::OF_BUILDS;
use crate::app::overview::builds::{Build, BuildExplained, BuildStep};
use crate::app::overview::page::List;
use crate::app::{App, Failure, Outcome};
use crate::http::answer::{Answer, empty};
use crate::http::build_lines;
use crate::http::query::Query;

pub(super) const ID: Parameter =
    Parameter { name: "id", about: "Id of the build, or how it begins.", kind: ParameterKind::Path };
const BUILDS: About = About {
    summary: "Builds that are remembered, newest first.",
    parameters: &[
        LIMIT,
        AFTER,
        Parameter {
            name: "filters",
            about: "Only some of them, as Docker's lists take it: `{\"status\": {\"failed\": true}}`. Keys are `builder`, `id` \
                    (how it begins), `since` and `until` (a time, or a duration before now), `status`, `tag` (or its \
                    repository), `user`, `worker`; of several values of a key one must fit.",
            kind: ParameterKind::Text,
        },
    ],
    content_type: JSON,
    refusals: &[400],
};
/// One JSON value a line.
pub(super) const LINES: &str = "application/x-ndjson";

/// Adds the routes of builds to the table.
pub fn add_to(api: Api) -> Api {
    let of_one = |summary, refusals| About { summary, parameters: &[ID], content_type: JSON, refusals };
    let logs = About {
        summary: "The log of a build from its first line, as lines of JSON: `stream` is text of the classic builder, `status` \
                  a line of a pull, `trace` steps as BuildKit's rawjson has them; the last line is `end` or `error` with `code`.",
        parameters: &[
            ID,
            Parameter { name: "follow", about: "Go on until the build is over.", kind: ParameterKind::Flag },
        ],
        content_type: LINES,
        refusals: &[404],
    };
    api.get::<List<Build>, _, _>("/boxyard/v1/builds", &BUILDS, list)
        .get::<Build, _, _>("/boxyard/v1/builds/{id}", &of_one("One build.", &[404]), one)
        .get::<List<BuildStep>, _, _>("/boxyard/v1/builds/{id}/steps", &of_one("Its steps.", &[404]), steps)
        .get::<BuildExplained, _, _>(
            "/boxyard/v1/builds/{id}/explain",
            &of_one("Why its steps ran: what has changed since the last build of the same.", &[404]),
            explain,
        )
        .get::<String, _, _>("/boxyard/v1/builds/{id}/logs", &logs, follow)
        .post(
            "/boxyard/v1/builds/{id}/cancel",
            &of_one("Ends a build that is not over, whoever asked for it.", &[404, 409]),
            cancel,
        )
        .delete("/boxyard/v1/builds/{id}", &of_one("Forgets a build that is over, with its log.", &[404, 409]), forget)
}

async fn list(State(app): State<Arc<App>>, query: Query) -> Answer {
    sent(&app.build_list(&page_of(&query)?, &query.filters(OF_BUILDS)?).await?)
}

async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    sent(&app.build_shown(&id).await?)
}

async fn steps(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    sent(&app.build_steps_shown(&id).await?)
}

async fn explain(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    sent(&app.build_explained(&id).await?)
}

async fn follow(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let id = app.build_id(&id).await?;
    let log = match query.flag("follow") || app.db.recorded_log(&id).await?.is_some() {
        true => app.read_build_log(&id).await?,
        false => app.build_log_so_far(&id).await?,
    };
    let lines = futures::stream::unfold(log, |mut log| async move {
        let line = match log.next().await? {
            Ok(chunk) => build_lines::line(&chunk),
            Err(failure) => Some(json!({"error": failure.message, "code": 0})),
        };
        Some((line, log))
    });
    Ok(crate::http::lines_as(LINES, lines.filter_map(futures::future::ready)))
}

async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let id = app.build_id(&id).await?;
    must_go_on(&app, &id).await?;
    app.cancel_build(&id).await;
    empty(StatusCode::NO_CONTENT)
}

async fn forget(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    let id = app.build_id(&id).await?;
    match app.forget_build(&id).await? {
        Some(_) => empty(StatusCode::NO_CONTENT),
        None => Err(Failure::conflict(format!("build {id} is not over: cancel it first")).into()),
    }
}

/// # Errors
/// `Conflict` where the build is over.
async fn must_go_on(app: &App, id: &str) -> Outcome<()> {
    let build = app.db.build(id).await?.ok_or_else(|| Failure::not_found(format!("no such build: {id}")))?;
    match matches!(build.state.as_str(), "waiting" | "running") {
        true => Ok(()),
        false => Err(Failure::conflict(format!("build {id} is over: it is {}", build.state))),
    }
}
