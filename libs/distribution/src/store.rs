use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use model::Digest;
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use crate::{Error, reader::reader, verify::verified};

/// Repository of blobs that no image name points to from outside; reading it takes the token as well.
const INTERNAL: &str = "boxyard.internal";
/// Pins the blob to the lease that it names.
const LEASE: &str = "boxyard-lease";

/// How long a store that does not answer, as while it is started anew, is asked again.
const PATIENCE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(100);

/// A blob's bytes; the stream ends in an error when they were not those of the digest.
pub type BlobStream = BoxStream<'static, Result<Bytes, Error>>;

/// The layer store as its clients see it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    client: reqwest::Client,
    url: String,
    token: String,
}

#[derive(Deserialize)]
struct Stored {
    digest: Digest,
    size: u64,
}

impl Store {
    /// `url` without a path, `http://127.0.0.1:5000`, or https with what the process trusts; `token` as in the store's token file.
    pub fn new(url: impl Into<String>, token: impl Into<String>) -> Self {
        // reqwest wants a TLS provider even for plain HTTP; a process that has one already keeps it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(5));
        if let Some(trusted) = trust::client() {
            client = client.tls_backend_preconfigured(trusted.as_ref().clone());
        }
        let client = client.build().expect("a client without further settings");
        Self { client, url: url.into().trim_end_matches('/').to_owned(), token: token.into().trim().to_owned() }
    }

    /// Size of the blob in bytes, none when the store does not have it. With `lease` the blob is kept while that lasts.
    pub async fn has(&self, digest: &Digest, lease: Option<&str>) -> Result<Option<u64>, Error> {
        let request = self.request(Method::HEAD, &blob_path(digest), lease);
        let response = send(request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = accepted(response).await?;
        let size = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        size.map(Some).ok_or_else(|| Error::BadAnswer("a blob without Content-Length".to_owned()))
    }

    /// Streams the blob; `NotFound` when the store does not have it.
    pub async fn get(&self, digest: &Digest) -> Result<BlobStream, Error> {
        Ok(verified(self.open(digest).await?.bytes_stream().boxed(), digest.clone()).boxed())
    }

    /// The whole blob, checked; `TooLarge` when it has more than `max_bytes`.
    pub async fn get_bytes(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let mut stream = self.get(digest).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.try_next().await? {
            if (bytes.len() + chunk.len()) as u64 > max_bytes {
                return Err(Error::TooLarge { digest: digest.clone(), max_bytes });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The blob as a blocking reader, checked at its end; to be read inside `spawn_blocking`.
    pub async fn get_to_reader(&self, digest: &Digest) -> Result<impl io::Read + Send + 'static + use<>, Error> {
        Ok(reader(self.get(digest).await?.map_err(io::Error::other)))
    }

    /// `size` bytes of the blob from `offset` on. A part cannot be checked against the digest: who needs that has one of
    /// its own.
    pub async fn get_range(&self, digest: &Digest, offset: u64, size: u64) -> Result<BlobStream, Error> {
        if size == 0 {
            return Ok(futures::stream::empty().boxed());
        }
        let last = offset.saturating_add(size - 1);
        let request =
            self.request(Method::GET, &blob_path(digest), None).header(RANGE, format!("bytes={offset}-{last}"));
        let response = accepted(send(request).await?).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT || response.content_length() != Some(size) {
            return Err(Error::BadAnswer(format!("a range of blob {digest} that was not asked for")));
        }
        Ok(response.bytes_stream().map_err(Error::Unreachable).boxed())
    }

    /// The same as a blocking reader; to be read inside `spawn_blocking`.
    pub async fn range_to_reader(
        &self,
        digest: &Digest,
        offset: u64,
        size: u64,
    ) -> Result<impl io::Read + Send + 'static + use<>, Error> {
        Ok(reader(self.get_range(digest, offset, size).await?.map_err(io::Error::other)))
    }

    /// Stores `size` bytes under `digest`; may be repeated. `InvalidArgument` when they have another digest.
    pub async fn put(&self, digest: &Digest, size: u64, body: Body, lease: Option<&str>) -> Result<(), Error> {
        let path = format!("/v2/{INTERNAL}/blobs/uploads/?digest={digest}");
        let request = self
            .request(Method::POST, &path, lease)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size)
            .body(body);
        accepted(send(request).await?).await.map(drop)
    }

    /// Stores `bytes`, which the store may already have, and says their digest.
    pub async fn put_bytes(&self, bytes: &[u8], lease: Option<&str>) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if self.has(&digest, lease).await? != Some(bytes.len() as u64) {
            self.put(&digest, bytes.len() as u64, Body::from(bytes.to_vec()), lease).await?;
        }
        Ok(digest)
    }

    /// Stores a body of unknown length; the store computes its digest and says its size in bytes.
    /// A body that breaks off leaves nothing.
    pub async fn upload(&self, body: Body, lease: Option<&str>) -> Result<(Digest, u64), Error> {
        let request = self.request(Method::POST, "/internal/blobs", lease).body(body);
        let response = accepted(send(request).await?).await?;
        let answer = response.bytes().await.map_err(Error::Unreachable)?;
        let Stored { digest, size } =
            serde_json::from_slice(&answer).map_err(|error| Error::BadAnswer(error.to_string()))?;
        Ok((digest, size))
    }

    async fn open(&self, digest: &Digest) -> Result<Response, Error> {
        let request = self.request(Method::GET, &blob_path(digest), None);
        match accepted(send(request).await?).await {
            Err(Error::Refused { kind: model::ErrorKind::NotFound, .. }) => Err(Error::Refused {
                kind: model::ErrorKind::NotFound,
                message: format!("blob {digest} is not in the layer store"),
            }),
            other => other,
        }
    }

    fn request(&self, method: Method, path: &str, lease: Option<&str>) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        match lease {
            Some(lease) => request.header(LEASE, lease),
            None => request,
        }
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("/v2/{INTERNAL}/blobs/{digest}")
}

/// Sends the request, and again while the store cannot be reached; all requests may be repeated, since blobs have the
/// names of their content. A streamed body is gone once it was sent, so it gets one try.
async fn send(request: RequestBuilder) -> Result<Response, Error> {
    let begin = Instant::now();
    while let Some(again) = request.try_clone() {
        match again.send().await {
            Err(error) if (error.is_connect() || error.is_request()) && begin.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome.map_err(Error::Unreachable),
        }
    }
    request.send().await.map_err(Error::Unreachable)
}

/// The response itself when it is a success, else its error.
async fn accepted(response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.unwrap_or_default();
    Err(Error::refused(status, &body))
}
