use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use model::Digest;

use super::receive::Failed;
use super::refusal::Refusal;
use super::sessions::Taken;
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
        if app.repositories.has_blob(&from, &digest) && show(app, &name, &digest).await? {
            return Ok(created(&name, &digest));
        }
    }
    let upload = app.blobs.upload(None).await?;
    let id = app.sessions.begin(name.clone(), upload)?;
    Ok(accepted(&name, &id, 0))
}

/// PATCH: appends a chunk. After a body that broke off the client may ask how far it came, and go on.
pub async fn append(app: &App, name: &Name, id: &str, request: Request) -> Result<Response, Refusal> {
    let mut taken = receive_into(app.sessions.take(name, id)?, request).await?;
    let received = taken.upload().received_bytes();
    if let Err(error) = taken.upload().rest().await {
        // It cannot be gone on with: it must not take up a place among those that can.
        drop(taken.for_good());
        return Err(error.into());
    }
    Ok(accepted(name, id, received))
}

/// PUT: appends what is left and puts the blob in place.
pub async fn finish(app: &App, name: &Name, id: &str, request: Request) -> Result<Response, Refusal> {
    let taken = app.sessions.take(name, id)?;
    let query = query(request.uri());
    let digest = query.get("digest").ok_or_else(|| Refusal::digest_invalid("the query names no digest"))?;
    let digest = route::digest(digest)?;
    let lease = access::lease(app, request.headers());
    let taken = receive_into(taken, request).await?;
    taken.for_good().commit(Some(&digest), lease.as_deref()).await?;
    shown(app, name, &digest).await
}

/// Appends a body to an upload that begins where this one stands. An upload that cannot be written is gone for good.
async fn receive_into(mut taken: Taken, request: Request) -> Result<Taken, Refusal> {
    if let Err(refusal) = fits(request.headers(), taken.upload().received_bytes()) {
        return Err(receive::refuse(request.into_body(), refusal).await);
    }
    match receive::into_upload(request.into_body(), taken.upload()).await {
        Ok(()) => Ok(taken),
        Err(Failed::Broken(refusal)) => Err(refusal),
        Err(Failed::Unwritten(refusal)) => {
            drop(taken.for_good());
            Err(refusal)
        }
    }
}

/// GET: how far an upload is.
pub fn status(app: &App, name: &Name, id: &str) -> Result<Response, Refusal> {
    let received = app.sessions.take(name, id)?.upload().received_bytes();
    let mut response = accepted(name, id, received);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// DELETE: drops an upload.
pub fn cancel(app: &App, name: &Name, id: &str) -> Result<Response, Refusal> {
    drop(app.sessions.take(name, id)?.for_good());
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /internal/blobs`: stores a body of any length and says its digest.
pub async fn store(app: &App, request: Request) -> Result<Response, Refusal> {
    let lease = access::lease(app, request.headers());
    let (digest, size) = receive(app, None, lease, request).await?;
    let answer = serde_json::json!({ "digest": digest, "size": size });
    Ok((StatusCode::CREATED, axum::Json(answer)).into_response())
}

async fn monolithic(app: &App, name: &Name, digest: &Digest, request: Request) -> Result<Response, Refusal> {
    let lease = access::lease(app, request.headers());
    receive(app, Some(digest), lease, request).await?;
    shown(app, name, digest).await
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

/// A plain repository shows the blob from now on; the internal one shows everything and lists nothing. False when
/// the blob is not here, or went away meanwhile.
async fn show(app: &App, name: &Name, digest: &Digest) -> Result<bool, Refusal> {
    if !name.is_internal() {
        let _no_link_goes = app.repositories.adding().await;
        if let Err(error) = app.repositories.link_blob(name, digest) {
            // Nobody may name it now.
            app.blobs.let_go([digest.clone()]);
            return Err(error.into());
        }
    }
    Ok(app.blobs.keep(digest)?)
}

/// The answer to a whole upload.
async fn shown(app: &App, name: &Name, digest: &Digest) -> Result<Response, Refusal> {
    if show(app, name, digest).await? {
        return Ok(created(name, digest));
    }
    let message = "the blob was removed while it was stored: send it again";
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "BLOB_UPLOAD_INVALID", message))
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

/// Where the chunk says where it belongs, `<first>-<last>`, it must be the next one and as long as its body.
fn fits(headers: &HeaderMap, received: u64) -> Result<(), Refusal> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let invalid = |status, message: String| Err(Refusal::new(status, "BLOB_UPLOAD_INVALID", message));
    let parsed = range.to_str().ok().and_then(|range| {
        let (first, last) = range.trim_start_matches("bytes ").split_once('-')?;
        // `bytes 0-9/10` says the whole's length too.
        let last = last.split('/').next().unwrap_or(last);
        Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
    });
    let Some((first, last)) = parsed else {
        return invalid(StatusCode::BAD_REQUEST, "the chunk's Content-Range makes no sense".to_owned());
    };
    if first != received || last < first {
        return invalid(StatusCode::RANGE_NOT_SATISFIABLE, format!("the next byte is {received}"));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length.is_none_or(|length| Some(last - first) == length.checked_sub(1)) {
        true => Ok(()),
        false => invalid(StatusCode::BAD_REQUEST, "the chunk is not as long as its Content-Range says".to_owned()),
    }
}
