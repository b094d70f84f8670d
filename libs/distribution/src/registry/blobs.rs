use std::time::Duration;

use backon::ExponentialBackoff;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, Method, StatusCode};
use model::Digest;
use url::Url;

use super::repository::{Call, SILENCE};
use super::retry::{pause, pauses, retried};
use super::{Error, Repository, transport};

/// So much must have come since the last break that the next one counts as the first.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Exactly as many bytes as were asked for, or an error at the end.
pub type BlobBytes = BoxStream<'static, Result<Bytes, Error>>;

impl Repository {
    /// Size of the blob in bytes, none when the repository does not have it.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let call = Call::new(Method::HEAD, self.url(&format!("blobs/{digest}")));
        let outcome = retried(|| async {
            let response = self.ask_if_there(&call).await?;
            Ok(response.map(|response| length(response.headers()).unwrap_or_default()))
        });
        outcome.await
    }

    /// Streams the blob. A connection that breaks is resumed where it broke, by Range where the registry knows that.
    /// The size is checked here, the digest by whoever reads all of it.
    pub fn blob(&self, digest: &Digest, size: u64) -> BlobBytes {
        let url = self.url(&format!("blobs/{digest}"));
        let download = Download {
            repository: self.clone(),
            url,
            digest: digest.clone(),
            size,
            offset: 0,
            skip: 0,
            body: None,
            pauses: pauses(),
            good_at: 0,
        };
        futures::stream::try_unfold(download, Download::next).boxed()
    }

    /// A small blob, checked against its digest.
    pub async fn blob_bytes(&self, digest: &Digest, size: u64, max_bytes: u64) -> Result<Vec<u8>, Error> {
        if size > max_bytes {
            return Err(Error::TooLarge { what: format!("blob {digest}"), max_bytes });
        }
        let append = |mut all: Vec<u8>, chunk: Bytes| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        };
        let bytes = self.blob(digest, size).try_fold(Vec::new(), append).await?;
        if Digest::of(&bytes) != *digest {
            return Err(Error::Lie(format!("blob verification failed for digest {digest}")));
        }
        Ok(bytes)
    }
}

struct Download {
    repository: Repository,
    url: Url,
    digest: Digest,
    size: u64,
    /// Bytes handed out.
    offset: u64,
    /// Bytes still to be passed over, when a registry began anew although a range was asked for.
    skip: u64,
    body: Option<BoxStream<'static, Result<Bytes, reqwest::Error>>>,
    pauses: ExponentialBackoff,
    /// Where the pauses began anew.
    good_at: u64,
}

impl Download {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        loop {
            let outcome = self.step().await;
            match outcome {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => return Ok(Some((chunk, self))),
                Ok(None) => return Ok(None),
                Err(error) => self.wait(error).await?,
            }
        }
    }

    /// The next bytes; none at the end.
    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        if self.body.is_none() {
            if self.offset == self.size && self.size > 0 {
                return Ok(None);
            }
            self.open().await?;
        }
        let body = self.body.as_mut().expect("opened");
        let read = tokio::time::timeout(SILENCE, body.next()).await.map_err(|_| transport::silent("GET", &self.url))?;
        match read {
            Some(Ok(mut chunk)) => {
                let skipped = self.skip.min(chunk.len() as u64);
                let _ = chunk.split_to(skipped as usize);
                self.skip -= skipped;
                self.offset += chunk.len() as u64;
                if self.offset > self.size {
                    return Err(self.lie("more"));
                }
                Ok(Some(chunk))
            }
            // All is here: how the connection ends does not matter.
            None | Some(Err(_)) if self.offset == self.size && self.skip == 0 => Ok(None),
            None => Err(Error::Transport {
                request: transport::request("GET", &self.url),
                why: "unexpected EOF".to_owned(),
                retry: true,
            }),
            Some(Err(error)) => Err(transport::failed("GET", &self.url, &error)),
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let mut call = Call::new(Method::GET, self.url.clone());
        if self.offset > 0 {
            call = call.header(RANGE, &format!("bytes={}-", self.offset));
        }
        let response = self.repository.ask(&call).await?;
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let first = if is_part { first_byte(response.headers()).unwrap_or(u64::MAX) } else { 0 };
        if first != 0 && first != self.offset {
            return Err(Error::Lie(format!(
                "blob {}: the registry sent another part of it than it was asked for",
                self.digest
            )));
        }
        let wanted = self.size - first;
        match length(response.headers()) {
            Some(length) if length > wanted => return Err(self.lie("more")),
            Some(length) if length < wanted => return Err(self.lie("fewer")),
            _ => {}
        }
        self.skip = self.offset - first;
        self.body = Some(response.bytes_stream().boxed());
        Ok(())
    }

    fn lie(&self, how_many: &str) -> Error {
        Error::Lie(format!("blob {} has {how_many} than the {} bytes of its manifest", self.digest, self.size))
    }

    /// Waits before the next try, or ends with the error.
    async fn wait(&mut self, error: Error) -> Result<(), Error> {
        self.body = None;
        if !error.is_retryable() {
            return Err(error);
        }
        if self.offset >= self.good_at + PROGRESS_BYTES {
            (self.pauses, self.good_at) = (pauses(), self.offset);
        }
        let planned: Option<Duration> = self.pauses.next();
        let Some(pause) = pause(&error, planned) else { return Err(error) };
        tracing::warn!(%error, digest = %self.digest, offset = self.offset, "a layer is resumed");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `bytes 100-199/200`
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
