//! Files by URL, for ADD and for a build's context.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use model::Digest;
use reqwest::header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio::io::AsyncWriteExt as _;

/// What is told of an answer that is no success.
const SHOWN_CHARS: usize = 1024;

/// A fetched file, alone in its folder; only root may read it.
#[derive(Debug)]
pub struct Download {
    pub folder: PathBuf,
    pub name: String,
    pub digest: Digest,
    pub validators: Validators,
}

/// What tells whether a file is still the same (RFC 9110, 8.8); empty where its server did not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    pub etag: String,
    pub last_modified: String,
}

impl Validators {
    pub fn are_none(&self) -> bool {
        self.etag.is_empty() && self.last_modified.is_empty()
    }

    fn of(headers: &HeaderMap) -> Self {
        let text =
            |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        Self { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
    }
}

pub struct Wanted<'a> {
    pub url: &'a str,
    /// The file's name in its folder.
    pub name: &'a str,
    /// A file that need not come again while these hold.
    pub known: Option<&'a Validators>,
}

#[derive(Debug)]
pub enum Answer {
    New(Download),
    /// The one that is known.
    Unchanged,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Get {url:?}: {why}")]
    Get { url: String, why: String },
    #[error("failed to GET {url} with status {status}: {body}")]
    Status { url: String, status: StatusCode, body: String },
    #[error("writing {url}: {source}")]
    Write { url: String, source: std::io::Error },
}

impl Error {
    /// In the words of BuildKit, where those above are the classic builder's.
    pub fn as_buildkit(&self) -> String {
        match self {
            Self::Status { status, .. } => format!("invalid response status {}", status.as_u16()),
            other => other.to_string(),
        }
    }
}

/// Fetches under the name that the URL ends with.
pub async fn download(url: &str, folder: PathBuf) -> Result<Download, String> {
    let name = file_name(url).ok_or_else(|| format!("cannot determine filename for url: {url}"))?;
    download_as(url, folder, &name).await
}

pub async fn download_as(url: &str, folder: PathBuf, name: &str) -> Result<Download, String> {
    let wanted = Wanted { url, name, known: None };
    match get(&wanted, folder).await.map_err(|error| error.to_string())? {
        Answer::New(download) => Ok(download),
        Answer::Unchanged => Err(format!("failed to GET {url} with status 304 Not Modified")),
    }
}

/// Fetches a file into `folder`, which is made.
///
/// # Errors
/// `Get` where no answer came, `Status` for one that is no success, `Write` where the disk takes no more.
pub async fn get(wanted: &Wanted<'_>, folder: PathBuf) -> Result<Answer, Error> {
    let url = || wanted.url.to_owned();
    let response = ask(wanted).await.map_err(|error| Error::Get { url: url(), why: causes(&error.without_url()) })?;
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED && wanted.known.is_some() {
        return Ok(Answer::Unchanged);
    }
    if !status.is_success() {
        let body = response.text().await.unwrap_or_default().chars().take(SHOWN_CHARS).collect();
        return Err(Error::Status { url: url(), status, body });
    }
    save(wanted, response, folder).await.map(Answer::New)
}

async fn ask(wanted: &Wanted<'_>) -> Result<Response, reqwest::Error> {
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(30))
        .read_timeout(Duration::from_secs(120))
        .build()?;
    let mut request = client.get(wanted.url);
    if let Some(known) = wanted.known {
        let conditions = [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)];
        // Where there is an entity tag the date does not count (RFC 9110, 13.1.3).
        if let Some((name, value)) = conditions.into_iter().find(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
    }
    request.send().await
}

async fn save(wanted: &Wanted<'_>, response: Response, folder: PathBuf) -> Result<Download, Error> {
    let local = |source| Error::Write { url: wanted.url.to_owned(), source };
    let validators = Validators::of(response.headers());
    let modified = jiff::fmt::rfc2822::parse(&validators.last_modified).ok();
    let modified = modified.map(|time| std::time::SystemTime::from(time.timestamp()));
    tokio::fs::create_dir_all(&folder).await.map_err(local)?;
    let mut file = tokio::fs::File::create(folder.join(wanted.name)).await.map_err(local)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).await.map_err(local)?;
    let mut hash = sha2::Sha256::new();
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let chunk =
            chunk.map_err(|error| Error::Get { url: wanted.url.to_owned(), why: causes(&error.without_url()) })?;
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(local)?;
    }
    file.flush().await.map_err(local)?;
    let file = file.into_std().await;
    // Without a date the file gets none either, so that the same content is the same layer.
    file.set_modified(modified.unwrap_or(std::time::UNIX_EPOCH)).map_err(local)?;
    let digest = Digest::from_sha256(&hash.finalize().into());
    Ok(Download { folder, name: wanted.name.to_owned(), digest, validators })
}

/// The last part of a URL's path, if it is fit to be a name.
pub fn file_name(url: &str) -> Option<String> {
    let path = url.split_once("://")?.1.split(['?', '#']).next()?;
    let name = path.split_once('/')?.1.rsplit('/').next()?;
    (!name.is_empty() && name != "." && name != "..").then(|| name.to_owned())
}

/// reqwest says what it did; why it failed is in the causes.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    match last.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => last.to_string(),
    }
}
