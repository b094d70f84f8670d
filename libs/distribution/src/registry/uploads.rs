use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use model::Digest;
use reqwest::Response;
use url::Url;

use super::repository::{Call, Outgoing};
use super::retry::retried;
use super::{Error, Repository};

/// What the registry made of the wish to upload a blob.
pub enum Begun {
    /// Another repository's blob is shown here from now on.
    Mounted,
    Session(Box<Session>),
}

/// How long a registry may look at a blob that it has got; some copy it then.
const FINISH: Duration = Duration::from_secs(600);

/// An upload that the registry waits for. Dropped, it is the registry's to clear away.
pub struct Session {
    repository: Repository,
    location: Url,
}

impl Repository {
    /// Asks for an upload, or with `mount` for the blob of another repository of the same registry. A registry that
    /// cannot mount begins an upload instead.
    pub async fn begin_upload(&self, mount: Option<(&Digest, &str)>) -> Result<Begun, Error> {
        let plain = Call::new(Method::POST, self.url("blobs/uploads/"));
        let mut call = plain.clone();
        if let Some((digest, from)) = mount {
            call.url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
            call.scopes.push(format!("repository:{from}:pull"));
        }
        let outcome = retried(|| self.ask(&call)).await;
        let response = match outcome {
            // It may be that only the other repository is out of reach.
            Err(error) if mount.is_some() && !error.is_retryable() => retried(|| self.ask(&plain)).await?,
            outcome => outcome?,
        };
        if response.status() == StatusCode::CREATED && mount.is_some() {
            return Ok(Begun::Mounted);
        }
        let location = location(&call.url, &response)?;
        Ok(Begun::Session(Box::new(Session { repository: self.clone(), location })))
    }

    /// Uploads a blob whose bytes `open` opens, anew for each try. The first try may use a session that was begun.
    ///
    /// # Errors
    /// The registry's, after five tries of what may pass; `Source` as `open` says.
    pub async fn upload<F: Future<Output = Result<Outgoing, crate::Error>>>(
        &self,
        digest: &Digest,
        first: Option<Box<Session>>,
        open: impl Fn() -> F,
    ) -> Result<(), Error> {
        let first = Mutex::new(first);
        retried(|| async {
            let begun = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let session = match begun {
                Some(session) => session,
                None => match self.begin_upload(None).await? {
                    Begun::Session(session) => session,
                    Begun::Mounted => return Ok(()),
                },
            };
            let body = open().await?;
            session.append(body).await?.finish(digest).await
        })
        .await
    }

    /// Uploads a small blob unless the repository has it; may be repeated.
    pub async fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.has_blob(digest).await?.is_some() {
            return Ok(());
        }
        retried(|| async {
            let Begun::Session(session) = self.begin_upload(None).await? else { return Ok(()) };
            session.finish_with(digest, Bytes::copy_from_slice(bytes)).await
        })
        .await
    }
}

impl Session {
    /// Sends all bytes of the blob at once (distribution-spec, Pushing a blob in chunks: one chunk of any length).
    ///
    /// # Errors
    /// What breaks off here is begun anew, with a new session.
    pub async fn append(self, body: Outgoing) -> Result<Self, Error> {
        let Self { repository, location } = self;
        let response = repository.stream(Method::PATCH, &location, body).await?;
        let location = self::location(&location, &response)?;
        Ok(Self { repository, location })
    }

    /// Names what was sent; the registry checks it.
    pub async fn finish(self, digest: &Digest) -> Result<(), Error> {
        self.finish_with(digest, Bytes::new()).await
    }

    async fn finish_with(mut self, digest: &Digest, body: Bytes) -> Result<(), Error> {
        self.location.query_pairs_mut().append_pair("digest", digest.as_str());
        let octets = "application/octet-stream";
        let call = Call {
            body,
            patience: FINISH,
            ..Call::new(Method::PUT, self.location).header(http::header::CONTENT_TYPE, octets)
        };
        self.repository.ask(&call).await.map(drop)
    }
}

/// Where the upload goes on; may be relative to the address that was asked.
fn location(asked: &Url, response: &Response) -> Result<Url, Error> {
    let header = response.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
    let url = header.and_then(|location| asked.join(location).ok());
    url.filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| Error::Lie("the registry does not say where the upload goes".to_owned()))
}
