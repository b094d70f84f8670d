use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use model::Digest;
use oci::media_type::OCI_INDEX;
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::{App, manifests};
use crate::manifest::Manifest;
use crate::repositories::Name;

/// A page ends when its descriptors are about this long; annotations may be large.
const PAGE_BYTES: usize = 1 << 20;

/// `last` is our own, for the next page.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Asked {
    artifact_type: Option<String>,
    last: Option<String>,
}

/// GET: an index of the manifests whose subject this is (distribution-spec, Listing Referrers); empty where there are
/// none, whether the subject is here or not.
pub fn list(app: &App, name: &Name, subject: &Digest, uri: &Uri) -> Result<Response, Refusal> {
    let asked: Asked = axum::extract::Query::try_from_uri(uri).map(|query| query.0).unwrap_or_default();
    let (mut listed, mut bytes, mut next) = (Vec::new(), 0, None);
    for digest in app.repositories.referrers(name, subject)? {
        if asked.last.as_deref().is_some_and(|last| digest.as_str() <= last) {
            continue;
        }
        let Some(descriptor) = describe(app, name, &digest)? else { continue };
        let same = |wanted: &String| descriptor["artifactType"] == wanted.as_str();
        if !asked.artifact_type.as_ref().is_none_or(same) {
            continue;
        }
        bytes += descriptor.to_string().len();
        listed.push(descriptor);
        if bytes >= PAGE_BYTES {
            next = Some(digest);
            break;
        }
    }
    let body = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed }).to_string();
    let mut response = ([(header::CONTENT_TYPE, OCI_INDEX)], body).into_response();
    if asked.artifact_type.is_some() {
        response.headers_mut().insert("oci-filters-applied", header::HeaderValue::from_static("artifactType"));
    }
    if let Some(next) = next.and_then(|last| link(uri, &last)) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

/// None when the manifest is not there any more.
fn describe(app: &App, name: &Name, digest: &Digest) -> Result<Option<Value>, Refusal> {
    let Some(media_type) = app.repositories.manifest(name, digest) else { return Ok(None) };
    let Some(bytes) = manifests::read(app, digest)? else { return Ok(None) };
    let manifest: Manifest = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    if let Some(artifact_type) = manifest.artifact_type() {
        descriptor["artifactType"] = artifact_type.into();
    }
    if let Some(annotations) = manifest.annotations {
        descriptor["annotations"] = annotations.into();
    }
    Ok(Some(descriptor))
}

fn link(uri: &Uri, last: &Digest) -> Option<header::HeaderValue> {
    let others = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("last="));
    let query: String = others.filter(|pair| !pair.is_empty()).map(|pair| format!("{pair}&")).collect();
    format!("<{}?{query}last={last}>; rel=\"next\"", uri.path()).parse().ok()
}
