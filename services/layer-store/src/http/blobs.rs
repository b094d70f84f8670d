use std::io::{Seek as _, SeekFrom};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use model::Digest;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::range::{self, Part};
use super::refusal::Refusal;
use super::{App, access};
use crate::repositories::Name;

const CHUNK_BYTES: usize = 256 << 10;

/// GET and HEAD of a blob (distribution-spec, Pulling blobs), whole or one range.
pub fn get(app: &App, name: &Name, digest: &Digest, request: &Request) -> Result<Response, Refusal> {
    // Pinned before it is looked for, so that it cannot go in between.
    if let Some(lease) = access::lease(request.headers()) {
        app.blobs.pin(&lease, digest)?;
    }
    if !name.is_internal() && !app.repositories.has_blob(name, digest) {
        return Err(Refusal::blob_unknown());
    }
    let (mut file, size) = app.blobs.read(digest)?;
    let range = request.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, part) = match range.and_then(|range| range::parse(range, size)) {
        None => (StatusCode::OK, Part { first: 0, count: size }),
        Some(Ok(part)) => (StatusCode::PARTIAL_CONTENT, part),
        Some(Err(())) => return Ok(outside(size)),
    };
    let body = if *request.method() == Method::HEAD {
        Body::empty()
    } else {
        file.seek(SeekFrom::Start(part.first))?;
        let reader = tokio::fs::File::from_std(file).take(part.count);
        Body::from_stream(ReaderStream::with_capacity(reader, CHUNK_BYTES))
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, part.count)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{digest}\""))
        .header("docker-content-digest", digest.as_str());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = part.first + part.count - 1;
        response = response.header(header::CONTENT_RANGE, format!("bytes {}-{last}/{size}", part.first));
    }
    Ok(response.body(body).expect("a response of checked parts"))
}

fn outside(size: u64) -> Response {
    (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{size}"))]).into_response()
}
