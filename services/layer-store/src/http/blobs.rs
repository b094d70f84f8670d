use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use model::Digest;

use super::range::{self, Part};
use super::refusal::Refusal;
use super::{App, access, condition, send};
use crate::repositories::Name;

/// GET and HEAD of a blob (distribution-spec, Pulling blobs), whole or one range.
pub fn get(app: &App, name: &Name, digest: &Digest, request: &Request) -> Result<Response, Refusal> {
    // Pinned before it is looked for, so that it cannot go in between.
    if let Some(lease) = access::lease(app, request.headers()) {
        app.blobs.pin(&lease, digest)?;
    }
    if !name.is_internal() && !app.repositories.has_blob(name, digest) {
        return Err(Refusal::blob_unknown());
    }
    let (file, size) = app.blobs.read(digest)?;
    let headers = request.headers();
    if *request.method() == Method::HEAD {
        app.repositories.touch_blob(name, digest);
    }
    if condition::is_held(headers, digest) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, condition::entity_tag(digest))]).into_response());
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let range = range.filter(|_| !condition::range_is_of_another(headers, digest));
    let (status, part) = match range.and_then(|range| range::parse(range, size)) {
        None => (StatusCode::OK, Part { first: 0, count: size }),
        Some(Ok(part)) => (StatusCode::PARTIAL_CONTENT, part),
        Some(Err(())) => return Ok(outside(size)),
    };
    let body = if *request.method() == Method::HEAD { Body::empty() } else { send::body(file, part) };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, part.count)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, condition::entity_tag(digest))
        .header("docker-content-digest", digest.as_str());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = part.first + part.count - 1;
        response = response.header(header::CONTENT_RANGE, format!("bytes {}-{last}/{size}", part.first));
    }
    Ok(response.body(body).expect("a response of checked parts"))
}

/// DELETE: the repository shows the blob no more.
pub async fn delete(app: &App, name: &Name, digest: &Digest) -> Result<Response, Refusal> {
    if name.is_internal() {
        return Err(Refusal::unsupported());
    }
    if !app.repositories.unlink_blob(name, digest)? {
        return Err(Refusal::blob_unknown());
    }
    app.blobs.let_go([digest.clone()]);
    Ok(StatusCode::ACCEPTED.into_response())
}

fn outside(size: u64) -> Response {
    (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{size}"))]).into_response()
}
