//! What the gateway counts of its requests.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use service::metrics::{self, Family, Kind};

static REQUESTS: Family = Family {
    name: "boxyard_http_requests_total",
    help: "Requests that were answered, by method, route and status.",
    kind: Kind::Counter,
};
static SECONDS: Family = Family {
    name: "boxyard_http_request_duration_seconds",
    help: "How long it took until the answer began, by method and route; a stream goes on after that.",
    kind: Kind::Histogram,
};

/// Counts a request by its route's pattern, so that no client can make new labels.
pub async fn count(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unknown", MatchedPath::as_str);
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let response = next.run(request).await;
    let code = response.status();
    metrics::count(&REQUESTS, &[("method", method), ("route", route), ("code", code.as_str())]);
    metrics::observe(&SECONDS, &[("method", method), ("route", route)], began.elapsed());
    response
}
