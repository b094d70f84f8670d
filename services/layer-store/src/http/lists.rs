use axum::extract::Query;
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;

use super::App;
use super::refusal::Refusal;
use crate::repositories::Name;

/// `?n=` and `?last=` (distribution-spec, Listing Tags).
#[derive(Default, Deserialize)]
struct Paging {
    n: Option<usize>,
    last: Option<String>,
}

struct Page {
    items: Vec<String>,
    /// Address of the next page, where there is one.
    next: Option<String>,
}

pub fn tags(app: &App, name: &Name, uri: &Uri) -> Result<Response, Refusal> {
    let tags = app.repositories.tags(name)?.ok_or_else(Refusal::name_unknown)?;
    let Page { items, next } = page(tags, uri);
    Ok(listed(serde_json::json!({ "name": name.as_str(), "tags": items }), next))
}

pub fn catalog(app: &App, uri: &Uri) -> Result<Response, Refusal> {
    let Page { items, next } = page(app.repositories.catalog()?, uri);
    Ok(listed(serde_json::json!({ "repositories": items }), next))
}

fn page(mut items: Vec<String>, uri: &Uri) -> Page {
    let Paging { n, last } = Query::try_from_uri(uri).map(|Query(paging)| paging).unwrap_or_default();
    if let Some(last) = last {
        items.retain(|item| *item > last);
    }
    let Some(n) = n.filter(|n| *n < items.len()) else { return Page { items, next: None } };
    items.truncate(n);
    let next = items.last().map(|last| format!("<{}?n={n}&last={last}>; rel=\"next\"", uri.path()));
    Page { items, next }
}

fn listed(body: serde_json::Value, next: Option<String>) -> Response {
    let mut response = axum::Json(body).into_response();
    if let Some(next) = next.and_then(|next| next.parse().ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    response
}
