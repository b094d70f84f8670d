//! The page at `/boxyard/`: one HTML, one module of JavaScript and one style sheet, compiled in.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use crate::app::App;

/// Everything comes from here, nothing is written into the page as HTML, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/boxyard", get(async || Redirect::permanent("/boxyard/")))
        .route("/boxyard/", get(async || file("text/html; charset=utf-8", include_str!("../../../page/index.html"))))
        .route("/boxyard/page.js", get(async || file("text/javascript", include_str!("../../../page/page.js"))))
        .route("/boxyard/page.css", get(async || file("text/css", include_str!("../../../page/page.css"))))
        .route("/boxyard/icon.svg", get(async || file("image/svg+xml", include_str!("../../../page/icon.svg"))))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // A new version's page must not be mixed with an old one's.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
