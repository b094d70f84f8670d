use ::blobs::Error as BlobError;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use model::Digest;
use serde::Deserialize;

use super::App;
use super::refusal::Refusal;
use super::route::Reference;
use crate::repositories::Name;

/// Larger manifests are refused (distribution-spec, Pushing Manifests, asks for 4 MiB at least).
const MAX_BYTES: usize = 4 << 20;
const DEFAULT_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The part of a manifest or an index that says what else must be here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Named {
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    /// A layer with addresses of its own need not be here.
    #[serde(default)]
    urls: Vec<String>,
}

/// GET and HEAD by tag or digest; the very bytes that were pushed.
pub fn get(app: &App, name: &Name, reference: &Reference, request: &Request) -> Result<Response, Refusal> {
    let digest = match reference {
        Reference::Digest(digest) => digest.clone(),
        Reference::Tag(tag) => app.repositories.tag(name, tag).ok_or_else(Refusal::manifest_unknown)?,
    };
    let media_type = app.repositories.manifest(name, &digest).ok_or_else(Refusal::manifest_unknown)?;
    let (file, size) = app.blobs.read(&digest).map_err(|error| match error {
        BlobError::NotFound(_) => Refusal::manifest_unknown(),
        other => other.into(),
    })?;
    let body = if *request.method() == Method::HEAD {
        Body::empty()
    } else {
        let file = tokio::fs::File::from_std(file);
        Body::from_stream(tokio_util::io::ReaderStream::new(file))
    };
    Ok((
        [
            (header::CONTENT_TYPE.as_str(), media_type.as_str()),
            (header::CONTENT_LENGTH.as_str(), size.to_string().as_str()),
            (header::ETAG.as_str(), format!("\"{digest}\"").as_str()),
            ("docker-content-digest", digest.as_str()),
        ],
        body,
    )
        .into_response())
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
    let named: Named = serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::manifest_invalid(format!("manifest invalid: {error}")))?;
    ensure_complete(app, name, &named)?;
    let media_type = declared.or(named.media_type).unwrap_or_else(|| DEFAULT_TYPE.to_owned());

    // The link comes before the bytes, so that a release in between finds the blob named.
    app.repositories.put_manifest(name, &digest, &media_type)?;
    store(app, &digest, bytes).await?;
    if let Reference::Tag(tag) = reference {
        app.repositories.put_tag(name, tag, &digest)?;
    }
    let location = format!("/v2/{name}/manifests/{digest}");
    let mut response = (
        StatusCode::CREATED,
        [(header::LOCATION.as_str(), location.as_str()), ("docker-content-digest", digest.as_str())],
    )
        .into_response();
    if let Some(subject) = named.subject.and_then(|subject| subject.digest.as_str().parse().ok()) {
        response.headers_mut().insert("oci-subject", subject);
    }
    Ok(response)
}

async fn store(app: &App, digest: &Digest, bytes: Bytes) -> Result<(), Refusal> {
    let mut upload = app.blobs.upload(Some(bytes.len() as u64)).await?;
    upload.write(bytes).await?;
    upload.commit(Some(digest), None).await?;
    Ok(())
}

fn ensure_complete(app: &App, name: &Name, named: &Named) -> Result<(), Refusal> {
    let unknown = |digest: &Digest| {
        Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", format!("blob unknown to registry: {digest}"))
    };
    let blobs = named.config.iter().chain(named.layers.iter().filter(|layer| layer.urls.is_empty()));
    for Descriptor { digest, urls: _ } in blobs {
        if !app.repositories.has_blob(name, digest) || app.blobs.size(digest)?.is_none() {
            return Err(unknown(digest));
        }
    }
    for Descriptor { digest, urls: _ } in &named.manifests {
        if app.repositories.manifest(name, digest).is_none() {
            return Err(unknown(digest));
        }
    }
    Ok(())
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim().to_owned())
}
