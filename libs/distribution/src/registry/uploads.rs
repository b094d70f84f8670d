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

/// What the registry made of the wish to mount a blob.
pub enum Begun {
    /// Another repository's blob is shown here from now on.
    Mounted,
    Session(Box<Session>),
}

/// What is there of an upload before its first try.
pub enum First {
    Nothing,
    Begun(Box<Session>),
    /// All bytes were sent, or it broke off.
    Appended(Result<Box<Session>, Error>),
}

/// How long a registry may look at a blob that it has got; some copy it then.
const FINISH: Duration = Duration::from_secs(600);

/// An upload that the registry waits for. Dropped, it is the registry's to clear away.
pub struct Session {
    repository: Repository,
    location: Url,
}

impl Repository {
    pub async fn begin_upload(&self) -> Result<Box<Session>, Error> {
        let call = self.uploads();
        let response = retried(|| self.ask(&call)).await?;
        self.session(&call, &response)
    }

    /// Asks for the blob of another repository of the same registry. A registry that cannot mount begins an upload
    /// instead.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<Begun, Error> {
        let mut call = self.uploads();
        call.url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
        call.scopes.push(format!("repository:{from}:pull"));
        let response = match retried(|| self.ask(&call)).await {
            // It may be that only the other repository is out of reach.
            Err(error) if !error.is_retryable() => return self.begin_upload().await.map(Begun::Session),
            outcome => outcome?,
        };
        if response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        self.session(&call, &response).map(Begun::Session)
    }

    fn uploads(&self) -> Call {
        Call::new(Method::POST, self.url("blobs/uploads/"))
    }

    fn session(&self, call: &Call, response: &Response) -> Result<Box<Session>, Error> {
        Ok(Box::new(Session { repository: self.clone(), location: location(&call.url, response)? }))
    }

    /// Uploads a blob whose bytes `open` opens, anew for each try. The first try goes on with what is there.
    ///
    /// # Errors
    /// The registry's, after five tries of what may pass; `Source` as `open` says.
    pub async fn upload<F: Future<Output = Result<Outgoing, crate::Error>>>(
        &self,
        digest: &Digest,
        first: First,
        open: impl Fn() -> F,
    ) -> Result<(), Error> {
        let first = Mutex::new(first);
        retried(|| async {
            let begun = std::mem::replace(&mut *first.lock().unwrap_or_else(PoisonError::into_inner), First::Nothing);
            let session = match begun {
                First::Appended(appended) => return appended?.finish(digest).await,
                First::Begun(session) => session,
                First::Nothing => self.begin_upload().await?,
            };
            session.append(open().await?).await?.finish(digest).await
        })
        .await
    }

    /// Uploads a small blob unless the repository has it; may be repeated.
    pub async fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.has_blob(digest).await?.is_some() {
            return Ok(());
        }
        retried(|| async { self.begin_upload().await?.finish_with(digest, Bytes::copy_from_slice(bytes)).await }).await
    }
}

impl Session {
    /// Sends all bytes of the blob at once (distribution-spec, Pushing a blob in chunks: one chunk of any length).
    ///
    /// # Errors
    /// What breaks off here is begun anew, with a new session.
    pub async fn append(mut self: Box<Self>, body: Outgoing) -> Result<Box<Self>, Error> {
        let response = self.repository.stream(Method::PATCH, &self.location, body).await?;
        self.location = location(&self.location, &response)?;
        Ok(self)
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
