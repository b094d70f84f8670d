use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use model::Digest;

use super::refusal::Refusal;
use super::{App, access, receive, route};
use crate::repositories::Name;

/// POST: starts an upload, stores a whole blob (`?digest=`), or shows another repository's blob here (`?mount=&from=`).
pub async fn begin(app: &App, name: Name, request: Request) -> Result<Response, Refusal> {
    let query = query(request.uri());
    if let Some(digest) = query.get("digest") {
        let digest = route::digest(digest)?;
        return monolithic(app, &name, &digest, request).await;
    }
    if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) {
        let digest = route::digest(digest)?;
        let from = Name::parse(from).ok_or_else(Refusal::name_invalid)?;
        // What cannot be mounted is uploaded; the specification asks for exactly that.
        if app.repositories.has_blob(&from, &digest) && app.blobs.size(&digest)?.is_some() {
            app.repositories.link_blob(&name, &digest)?;
            return Ok(created(&name, &digest));
        }
    }
    let upload = app.blobs.upload(None).await?;
    let id = app.sessions.begin(name.clone(), upload)?;
    Ok(accepted(&name, &id, 0))
}

/// PATCH: appends a chunk.
pub async fn append(app: &App, name: &Name, id: &str, request: Request) -> Result<Response, Refusal> {
    let mut upload = app.sessions.take(name, id)?;
    if let Some(first) = first_byte(request.headers()) {
        let received = upload.received_bytes();
        if first != received {
            app.sessions.give_back(name, id, upload);
            let message = format!("the next byte is {received}");
            let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message);
            return Err(receive::refuse(request.into_body(), refusal).await);
        }
    }
    receive::into_upload(request.into_body(), &mut upload).await?;
    let received = upload.received_bytes();
    app.sessions.give_back(name, id, upload);
    Ok(accepted(name, id, received))
}

/// PUT: appends what is left and puts the blob in place.
pub async fn finish(app: &App, name: &Name, id: &str, request: Request) -> Result<Response, Refusal> {
    let mut upload = app.sessions.take(name, id)?;
    let query = query(request.uri());
    let digest = query.get("digest").ok_or_else(|| Refusal::digest_invalid("the query names no digest"))?;
    let digest = route::digest(digest)?;
    let lease = access::lease(request.headers());
    receive::into_upload(request.into_body(), &mut upload).await?;
    upload.commit(Some(&digest), lease.as_deref()).await?;
    show(app, name, &digest)?;
    Ok(created(name, &digest))
}

/// GET: how far an upload is.
pub fn status(app: &App, name: &Name, id: &str) -> Result<Response, Refusal> {
    let upload = app.sessions.take(name, id)?;
    let received = upload.received_bytes();
    app.sessions.give_back(name, id, upload);
    let mut response = accepted(name, id, received);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// DELETE: drops an upload.
pub fn cancel(app: &App, name: &Name, id: &str) -> Result<Response, Refusal> {
    app.sessions.take(name, id)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /internal/blobs`: stores a body of any length and says its digest.
pub async fn store(app: &App, request: Request) -> Result<Response, Refusal> {
    let lease = access::lease(request.headers());
    let (digest, size) = receive(app, None, lease, request).await?;
    let answer = serde_json::json!({ "digest": digest, "size": size });
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}

async fn monolithic(app: &App, name: &Name, digest: &Digest, request: Request) -> Result<Response, Refusal> {
    let lease = access::lease(request.headers());
    receive(app, Some(digest), lease, request).await?;
    show(app, name, digest)?;
    Ok(created(name, digest))
}

/// One body, one blob.
async fn receive(
    app: &App,
    wanted: Option<&Digest>,
    lease: Option<String>,
    request: Request,
) -> Result<(Digest, u64), Refusal> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let body: Body = request.into_body();
    let mut upload = match app.blobs.upload(length).await {
        Ok(upload) => upload,
        Err(error) => return Err(receive::refuse(body, error).await),
    };
    receive::into_upload(body, &mut upload).await?;
    Ok(upload.commit(wanted, lease.as_deref()).await?)
}

/// A plain repository shows what was pushed to it; the internal one shows everything and lists nothing.
fn show(app: &App, name: &Name, digest: &Digest) -> Result<(), Refusal> {
    if name.is_internal() { Ok(()) } else { Ok(app.repositories.link_blob(name, digest)?) }
}

fn created(name: &Name, digest: &Digest) -> Response {
    let location = format!("/v2/{name}/blobs/{digest}");
    (StatusCode::CREATED, [(header::LOCATION.as_str(), location.as_str()), ("docker-content-digest", digest.as_str())])
        .into_response()
}

fn accepted(name: &Name, id: &str, received: u64) -> Response {
    let location = format!("/v2/{name}/blobs/uploads/{id}");
    let range = format!("0-{}", received.saturating_sub(1));
    (
        StatusCode::ACCEPTED,
        [
            (header::LOCATION.as_str(), location.as_str()),
            (header::RANGE.as_str(), range.as_str()),
            ("docker-upload-uuid", id),
        ],
    )
        .into_response()
}

fn query(uri: &Uri) -> HashMap<String, String> {
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}

/// First byte of a chunk's `Content-Range`, `<first>-<last>`.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.trim_start_matches("bytes ").split_once('-')?.0.parse().ok()
}
