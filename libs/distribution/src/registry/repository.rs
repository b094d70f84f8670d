use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use reqwest::Response;
use url::Url;

use super::auth::Authorizer;
use super::challenge::Challenge;
use super::endpoints::Endpoint;
use super::{Credentials, Error, Registries, transport};

/// How long the headers of an answer may take; also how long a body may send nothing.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// Of an error's body no more is read.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// A body that goes by once; it breaks the request off when it fails.
pub type Outgoing = BoxStream<'static, std::io::Result<Bytes>>;

/// What a call is going to do, which is what its tokens are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
    /// The list of all repositories; has no path of its own.
    Catalog,
}

/// One repository at one address, for one call. Clones share its tokens and connections.
#[derive(Clone)]
pub struct Repository {
    client: reqwest::Client,
    endpoint: Endpoint,
    path: String,
    scopes: Vec<String>,
    auth: Arc<Authorizer>,
}

/// A request that may be sent more than once.
#[derive(Clone)]
pub(super) struct Call {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Beyond those of the repository.
    pub scopes: Vec<String>,
    /// How long the headers of the answer may take.
    pub patience: Duration,
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), scopes: Vec::new(), patience: SILENCE }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }
}

impl Registries {
    /// Looks whether a registry answers at `endpoint`, and how it wants to be asked.
    ///
    /// # Errors
    /// `Transport` when nobody answers there (`Get "https://host/v2/": …`).
    pub async fn connect(
        &self,
        endpoint: Endpoint,
        path: &str,
        credentials: Credentials,
        access: Access,
    ) -> Result<Repository, Error> {
        let scopes = match access {
            Access::Pull => vec![format!("repository:{path}:pull")],
            Access::Push => vec![format!("repository:{path}:pull,push")],
            Access::Catalog => vec!["registry:catalog:*".to_owned()],
        };
        let auth = Authorizer::new(self.clone(), endpoint.clone(), credentials, false);
        Repository::open(self, endpoint, path, scopes, auth).await
    }
}

impl Repository {
    pub(super) async fn open(
        registries: &Registries,
        endpoint: Endpoint,
        path: &str,
        scopes: Vec<String>,
        auth: Authorizer,
    ) -> Result<Self, Error> {
        let client = registries.client(&endpoint)?;
        let repository = Self { client, endpoint, path: path.to_owned(), scopes, auth: Arc::new(auth) };
        let url = repository.base("v2/");
        let response = headers("GET", &url, SILENCE, repository.client.get(url.clone()).send()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(challenge) = Challenge::of(response.headers())
        {
            repository.auth.learn(challenge).await;
        }
        Ok(repository)
    }

    pub(super) fn auth(&self) -> &Authorizer {
        &self.auth
    }

    /// An address of the registry, `v2/_catalog`.
    pub(super) fn base(&self, rest: &str) -> Url {
        self.endpoint.base.join(rest).expect("a path of checked parts")
    }

    /// An address of the repository, `manifests/latest`.
    pub(super) fn url(&self, rest: &str) -> Url {
        self.base(&format!("v2/{}/{rest}", self.path))
    }

    /// The answer, whatever its status; after a refusal once more with a new token.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, Error> {
        let scopes: Vec<String> = self.scopes.iter().chain(&call.scopes).cloned().collect();
        let response = self.once(call, &scopes).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.is_own(&call.url) {
            return Ok(response);
        }
        if !self.auth.renew(Challenge::of(response.headers()), &scopes).await {
            return Ok(response);
        }
        drop(response);
        self.once(call, &scopes).await
    }

    /// The answer of a call that succeeded.
    pub(super) async fn ask(&self, call: &Call) -> Result<Response, Error> {
        accepted(call.method.as_str(), &call.url, self.send(call).await?).await
    }

    /// The same; none where the registry says that there is no such thing.
    pub(super) async fn ask_if_there(&self, call: &Call) -> Result<Option<Response>, Error> {
        let response = self.send(call).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        accepted(call.method.as_str(), &call.url, response).await.map(Some)
    }

    async fn once(&self, call: &Call, scopes: &[String]) -> Result<Response, Error> {
        let Call { method, url, headers: more, body, scopes: _, patience } = call;
        let request = self.client.request(method.clone(), url.clone()).headers(more.clone());
        let request = self.authorized(request, method, url, scopes).await?;
        let request = if body.is_empty() && method != Method::PUT && method != Method::POST {
            request
        } else {
            request.header(CONTENT_LENGTH, body.len()).body(body.clone())
        };
        headers(method.as_str(), url, *patience, request.send()).await
    }

    /// A request whose body goes by once.
    ///
    /// # Errors
    /// `Transport` also when nothing of the body was taken, and no answer came, for a minute.
    pub(super) async fn stream(&self, method: Method, url: &Url, body: Outgoing) -> Result<Response, Error> {
        let request = self.client.request(method.clone(), url.clone());
        let request = request.header(http::header::CONTENT_TYPE, "application/octet-stream");
        let request = self.authorized(request, &method, url, &self.scopes).await?;
        let taken = Arc::new(AtomicU64::new(0));
        let counter = taken.clone();
        let counted = body.inspect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut sending = std::pin::pin!(request.body(reqwest::Body::wrap_stream(counted)).send());
        let mut before = 0;
        loop {
            match tokio::time::timeout(SILENCE, &mut sending).await {
                Ok(sent) => {
                    let response = sent.map_err(|error| transport::failed(method.as_str(), url, &error))?;
                    return accepted(method.as_str(), url, response).await;
                }
                Err(_) if taken.load(Ordering::Relaxed) == before => {
                    return Err(transport::silent(method.as_str(), url));
                }
                Err(_) => before = taken.load(Ordering::Relaxed),
            }
        }
    }

    async fn authorized(
        &self,
        request: reqwest::RequestBuilder,
        method: &Method,
        url: &Url,
        scopes: &[String],
    ) -> Result<reqwest::RequestBuilder, Error> {
        // An upload may be sent elsewhere by its Location; credentials are not.
        if !self.is_own(url) {
            return Ok(request);
        }
        let header = self.auth.authorization(scopes).await;
        let header = header.map_err(|error| Authorizer::wanted_for(error, method.as_str(), url))?;
        Ok(header.into_iter().fold(request, |request, header| request.header(http::header::AUTHORIZATION, header)))
    }

    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.base.origin()
    }
}

/// Waits for an answer's headers, whatever its status.
async fn headers(
    method: &str,
    url: &Url,
    patience: Duration,
    sent: impl Future<Output = Result<Response, reqwest::Error>>,
) -> Result<Response, Error> {
    let answered = tokio::time::timeout(patience, sent).await.map_err(|_| transport::silent(method, url))?;
    answered.map_err(|error| transport::failed(method, url, &error))
}

/// The answer of a request that succeeded.
pub(super) async fn read_answer(
    method: &str,
    url: &Url,
    sent: impl Future<Output = Result<Response, reqwest::Error>>,
) -> Result<Response, Error> {
    accepted(method, url, headers(method, url, SILENCE, sent).await?).await
}

async fn accepted(method: &str, url: &Url, response: Response) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let pause = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?.trim()));
    let challenge = Challenge::of(response.headers());
    // Without a body the status says enough.
    let body = read_bounded(response, method, url, MAX_ERROR_BYTES).await.unwrap_or_default();
    Err(Error::answer(status, challenge.as_ref(), &body).after(pause))
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(date.duration_since(jiff::Timestamp::now()).try_into().unwrap_or_default())
}

/// A whole body of at most `max_bytes`.
///
/// # Errors
/// `TooLarge` before more than that is held; `Transport` when it breaks off or stalls.
pub(super) async fn read_bounded(
    mut response: Response,
    method: &str,
    url: &Url,
    max_bytes: u64,
) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { what: transport::request(method, url), max_bytes };
    if response.content_length().is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    loop {
        let read = tokio::time::timeout(SILENCE, response.chunk()).await;
        let chunk = read.map_err(|_| transport::silent(method, url))?;
        let Some(chunk) = chunk.map_err(|error| transport::failed(method, url, &error))? else { return Ok(bytes) };
        if (bytes.len() + chunk.len()) as u64 > max_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("soon"), None);
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO), "it is over");
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let text = jiff::fmt::rfc2822::to_string(&later.to_zoned(jiff::tz::TimeZone::UTC)).expect("a date");
        let pause = retry_after(&text).expect("a date");
        assert!(pause > Duration::from_secs(90) && pause <= Duration::from_secs(100), "{text}: {pause:?}");
    }
}
