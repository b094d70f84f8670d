//! `/boxyard/v1`, Boxyard's own HTTP API for dashboards and for builds, and the page at `/boxyard/`.

mod api;
mod begin_build;
mod builds;
mod caches;
mod events;
mod page;
mod step_shell;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode, Uri, header};
use serde_json::json;

use self::api::{About, Api, Parameter, ParameterKind};
use super::answer::{Answer, json_with};
use super::query::Query;
use crate::app::App;
use crate::app::overview::containers::Container;
use crate::app::overview::disk_usage::DiskUsage;
use crate::app::overview::images::Image;
use crate::app::overview::nodes::Node;
use crate::app::overview::page::{List, Page};
use crate::app::overview::services::Service;
use crate::app::overview::summary::Summary;
use crate::app::overview::transfers::Transfer;
use crate::app::overview::why_kept::WhyKept;

const JSON: &str = "application/json";
const LIMIT: Parameter =
    Parameter { name: "limit", about: "Rows of a page; 100 when absent.", kind: ParameterKind::Number(1, 1000) };
const AFTER: Parameter = Parameter { name: "after", about: "`next` of the page before.", kind: ParameterKind::Text };

const WHY_KEPT: About = About {
    summary: "What keeps a blob, a layer (by digest or diff id) or an image, and which machines have it unpacked.",
    parameters: &[Parameter {
        name: "digest",
        about: "The digest, or how it begins, with or without sha256:.",
        kind: ParameterKind::Path,
    }],
    content_type: JSON,
    refusals: &[400, 404, 503],
};

/// A list that is never long.
const fn short(summary: &'static str) -> About {
    About { summary, parameters: &[], content_type: JSON, refusals: &[503] }
}

const fn paged(summary: &'static str) -> About {
    About { summary, parameters: &[LIMIT, AFTER], content_type: JSON, refusals: &[400] }
}

/// The routes of the API and of the page.
pub fn routes() -> Router<Arc<App>> {
    let images = About {
        parameters: &[
            LIMIT,
            AFTER,
            Parameter { name: "all", about: "Also those that are only steps of a build.", kind: ParameterKind::Flag },
        ],
        ..paged("Images, newest first.")
    };
    let metrics = About {
        summary: "Figures of all processes for Prometheus, in its text format 0.0.4.",
        parameters: &[],
        content_type: "text/plain",
        refusals: &[],
    };
    let api = Api::default()
        .get::<Summary, _, _>(
            "/boxyard/v1/summary",
            &About { refusals: &[], ..short("The whole in a few numbers.") },
            summary,
        )
        .get::<List<Service>, _, _>("/boxyard/v1/services", &short("The processes of this Boxyard."), services)
        .get::<List<Node>, _, _>("/boxyard/v1/nodes", &short("The machines that run containers."), nodes)
        .get::<List<Image>, _, _>("/boxyard/v1/images", &images, image_list)
        .get::<List<Container>, _, _>("/boxyard/v1/containers", &paged("Containers, newest first."), containers)
        .get::<List<Transfer>, _, _>(
            "/boxyard/v1/transfers",
            &About { refusals: &[], ..short("Pulls and pushes that go on through this gateway.") },
            transfers,
        )
        .get::<events::Event, _, _>("/boxyard/v1/events", &events::ABOUT, events::follow)
        .get::<String, _, _>("/boxyard/v1/metrics", &metrics, metrics_page);
    let api = api
        .get::<DiskUsage, _, _>("/boxyard/v1/df", &short("What the layer store and the machines keep."), disk_usage)
        .get::<WhyKept, _, _>("/boxyard/v1/why-kept/{digest}", &WHY_KEPT, why_kept);
    begin_build::add_to(step_shell::add_to(builds::add_to(caches::add_to(workers::add_to(api)))))
        .finish("/boxyard/v1/openapi.json")
        .merge(page::routes())
        .method_not_allowed_fallback(wrong_method)
}

/// Every answer here is of this moment.
fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, JSON), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

fn sent<T: serde::Serialize>(value: &T) -> Answer {
    let text = serde_json::to_string(value).map_err(|error| crate::app::Failure::invalid(error.to_string()))?;
    Ok(json_text(text))
}

fn page_of(query: &Query) -> crate::app::Outcome<Page> {
    Page::read(query.maybe("limit"), query.maybe("after"))
}

async fn summary(State(app): State<Arc<App>>) -> Answer {
    sent(&app.summary().await?)
}

async fn services(State(app): State<Arc<App>>) -> Answer {
    sent(&app.services().await?)
}

async fn nodes(State(app): State<Arc<App>>) -> Answer {
    sent(&app.node_list().await?)
}

async fn image_list(State(app): State<Arc<App>>, query: Query) -> Answer {
    sent(&app.image_list(&page_of(&query)?, query.flag("all")).await?)
}

async fn containers(State(app): State<Arc<App>>, query: Query) -> Answer {
    sent(&app.container_list(&page_of(&query)?).await?)
}

async fn transfers(State(app): State<Arc<App>>) -> Answer {
    sent(&app.transfer_list())
}

async fn metrics_page(State(app): State<Arc<App>>) -> Answer {
    let text = app.metrics().await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], text).into_response())
}

async fn disk_usage(State(app): State<Arc<App>>) -> Answer {
    sent(&app.farm_usage().await?)
}

async fn why_kept(State(app): State<Arc<App>>, Path(digest): Path<String>) -> Answer {
    sent(&app.why_kept(&digest).await?)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{method} {}: this method is not understood here", uri.path());
    json_with(StatusCode::METHOD_NOT_ALLOWED, &json!({"message": message}))
}
