use std::io::Read as _;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use model::Digest;
use oci::media_type;

use super::recent::Found;
use super::refusal::Refusal;
use super::route::Reference;
use super::{App, condition};
use crate::manifest::Manifest;
use crate::repositories::Name;

/// Larger manifests are refused (distribution-spec, Pushing Manifests, asks for 4 MiB at least).
const MAX_BYTES: usize = 4 << 20;

/// GET and HEAD by tag or digest; the very bytes that were pushed.
pub fn get(app: &App, name: &Name, reference: &Reference, request: &Request) -> Result<Response, Refusal> {
    let mut found = find(app, name, reference)?;
    // Clients that know no index get the image that they mean, as the distribution project's registry does.
    let headers = request.headers();
    let wants_image = !condition::is_accepted(headers, &found.media_type)
        && [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST]
            .iter()
            .any(|image| condition::is_accepted(headers, image));
    if wants_image && media_type::is_index(&found.media_type) && matches!(reference, Reference::Tag(_)) {
        let index: Manifest = serde_json::from_slice(&found.bytes).unwrap_or_default();
        if let Some(child) = index.usual_child() {
            found = find(app, name, &Reference::Digest(child.clone()))?;
        }
    }
    if condition::is_held(headers, &found.digest) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, condition::entity_tag(&found.digest))]).into_response());
    }
    let body = if *request.method() == Method::HEAD { Body::empty() } else { Body::from(found.bytes.clone()) };
    let response = Response::builder()
        .header(header::CONTENT_TYPE, found.media_type.as_str())
        .header(header::CONTENT_LENGTH, found.bytes.len())
        .header(header::ETAG, condition::entity_tag(&found.digest))
        .header("docker-content-digest", found.digest.as_str())
        .body(body);
    response.map_err(|_| Refusal::manifest_invalid("the manifest's media type is none"))
}

fn find(app: &App, name: &Name, reference: &Reference) -> Result<Arc<Found>, Refusal> {
    if let Some(found) = app.recent.get(name, reference) {
        return Ok(found);
    }
    let changes = app.recent.changes();
    let digest = match reference {
        Reference::Digest(digest) => digest.clone(),
        Reference::Tag(tag) => app.repositories.tag(name, tag).ok_or_else(Refusal::manifest_unknown)?,
    };
    let media_type = app.repositories.manifest(name, &digest).ok_or_else(Refusal::manifest_unknown)?;
    let bytes = read(app, &digest)?.ok_or_else(Refusal::manifest_unknown)?;
    let found = Arc::new(Found { digest, media_type, bytes });
    app.recent.put(name, reference, &found, changes);
    Ok(found)
}

/// The bytes of a manifest; none when they are not here.
pub fn read(app: &App, digest: &Digest) -> Result<Option<Bytes>, Refusal> {
    let mut file = match app.blobs.read(digest) {
        Err(::blobs::Error::NotFound(_)) => return Ok(None),
        file => file?.0.take(MAX_BYTES as u64),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes.into()))
}

/// PUT by tag or digest; refused until all that it names is here.
pub async fn put(app: &App, name: &Name, reference: &Reference, request: Request) -> Result<Response, Refusal> {
    if name.is_internal() {
        return Err(Refusal::unsupported());
    }
    let declared = content_type(request.headers());
    let bytes = axum::body::to_bytes(request.into_body(), MAX_BYTES).await.map_err(|_| {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", "the manifest is too large or broke off")
    })?;
    let digest = Digest::of(&bytes);
    if let Reference::Digest(wanted) = reference
        && *wanted != digest
    {
        return Err(Refusal::digest_invalid(format!("the manifest has digest {digest}, not {wanted}")));
    }
    let parsed: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::manifest_invalid(format!("manifest invalid: {error}")))?;
    let media_type = media_type(declared, &parsed)?;

    let no_link_goes = app.repositories.adding().await;
    ensure_complete(app, name, &parsed)?;
    // The link comes before the bytes, so that a release in between finds the blob named.
    app.repositories.put_manifest(name, &digest, &media_type)?;
    if let Err(refusal) = store(app, &digest, bytes).await {
        drop(no_link_goes);
        let nobody_adds = app.repositories.nobody_adds().await;
        // Another push of the same may have had more luck.
        if app.blobs.size(&digest)?.is_none() {
            app.repositories.remove_manifest(name, &digest, None)?;
        }
        drop(nobody_adds);
        return Err(refusal);
    }
    if let Some(subject) = &parsed.subject {
        app.repositories.put_referrer(name, &subject.digest, &digest)?;
    }
    if let Reference::Tag(tag) = reference {
        app.repositories.put_tag(name, tag, &digest)?;
    }
    app.recent.changed(name);
    let location = format!("/v2/{name}/manifests/{digest}");
    let mut response = (
        StatusCode::CREATED,
        [(header::LOCATION.as_str(), location.as_str()), ("docker-content-digest", digest.as_str())],
    )
        .into_response();
    if let Some(subject) = parsed.subject.and_then(|subject| subject.digest.as_str().parse().ok()) {
        response.headers_mut().insert("oci-subject", subject);
    }
    Ok(response)
}

/// DELETE: by tag the tag alone, by digest the manifest with its tags (distribution-spec, Content Management).
pub async fn delete(app: &App, name: &Name, reference: &Reference) -> Result<Response, Refusal> {
    let was_there = match reference {
        Reference::Tag(tag) => app.repositories.remove_tag(name, tag)?,
        Reference::Digest(digest) => {
            let parsed = read(app, digest)?.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
            let subject = parsed.and_then(|manifest| manifest.subject).map(|subject| subject.digest);
            let was_there = app.repositories.remove_manifest(name, digest, subject.as_ref())?;
            app.blobs.let_go([digest.clone()]);
            was_there
        }
    };
    app.recent.changed(name);
    if was_there { Ok(StatusCode::ACCEPTED.into_response()) } else { Err(Refusal::manifest_unknown()) }
}

async fn store(app: &App, digest: &Digest, bytes: Bytes) -> Result<(), Refusal> {
    let mut upload = app.blobs.upload(Some(bytes.len() as u64)).await?;
    upload.write(bytes).await?;
    upload.commit(Some(digest), None).await?;
    Ok(())
}

fn ensure_complete(app: &App, name: &Name, parsed: &Manifest) -> Result<(), Refusal> {
    let unknown = |digest: &Digest| {
        Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", format!("blob unknown to registry: {digest}"))
    };
    for digest in parsed.blobs() {
        if !app.repositories.has_blob(name, digest) || app.blobs.size(digest)?.is_none() {
            return Err(unknown(digest));
        }
    }
    for child in &parsed.manifests {
        if app.repositories.manifest(name, &child.digest).is_none() {
            return Err(unknown(&child.digest));
        }
    }
    Ok(())
}

/// What the client declares, else what the manifest says of itself, else what it looks like.
fn media_type(declared: Option<String>, parsed: &Manifest) -> Result<String, Refusal> {
    if parsed.schema_version == Some(1) {
        return Err(Refusal::manifest_invalid("manifest invalid: schema version 1 is not supported"));
    }
    let guessed = if parsed.manifests.is_empty() { media_type::OCI_MANIFEST } else { media_type::OCI_INDEX };
    match (declared, parsed.media_type.clone()) {
        (Some(declared), Some(own)) if media_type::is_document(&declared) && declared != own => {
            let message = format!("manifest invalid: mediaType in manifest should be '{declared}' not '{own}'");
            Err(Refusal::manifest_invalid(message))
        }
        (Some(declared), _) if media_type::is_document(&declared) => Ok(declared),
        (declared, own) => Ok(own.or(declared).unwrap_or_else(|| guessed.to_owned())),
    }
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim().to_owned())
}
