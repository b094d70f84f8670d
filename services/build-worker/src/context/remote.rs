//! Files by URL, for ADD and for a build's context.

use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

/// A fetched file, alone in its folder.
#[derive(Debug)]
pub struct Download {
    pub folder: PathBuf,
    pub name: String,
}

/// Fetches under the name that the URL ends with.
pub async fn download(url: &str, folder: PathBuf) -> Result<Download, String> {
    let name = file_name(url).ok_or_else(|| format!("cannot determine filename for url: {url}"))?;
    download_as(url, folder, &name).await
}

pub async fn download_as(url: &str, folder: PathBuf, name: &str) -> Result<Download, String> {
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(30))
        .read_timeout(Duration::from_secs(120))
        .build()
        .map_err(|error| error.to_string())?;
    let get = |error: reqwest::Error| format!("Get {url:?}: {}", causes(&error.without_url()));
    let response = client.get(url).send().await.map_err(get)?;
    let status = response.status();
    if !status.is_success() {
        let body: String = response.text().await.unwrap_or_default().chars().take(1024).collect();
        return Err(format!("failed to GET {url} with status {status}: {body}"));
    }
    let modified = response
        .headers()
        .get("last-modified")
        .and_then(|value| jiff::fmt::rfc2822::parse(value.to_str().ok()?).ok())
        .map(|time| std::time::SystemTime::from(time.timestamp()));
    let local = |error: std::io::Error| format!("writing {url}: {error}");
    tokio::fs::create_dir_all(&folder).await.map_err(local)?;
    let mut file = tokio::fs::File::create(folder.join(name)).await.map_err(local)?;
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        file.write_all(&chunk.map_err(get)?).await.map_err(local)?;
    }
    file.flush().await.map_err(local)?;
    let file = file.into_std().await;
    // Without a date the file gets none either, so that the same content is the same layer.
    file.set_modified(modified.unwrap_or(std::time::UNIX_EPOCH)).map_err(local)?;
    Ok(Download { folder, name: name.to_owned() })
}

/// The last part of a URL's path, if it is fit to be a name.
fn file_name(url: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (url, expected) in
            [("http://h/a/b.tgz?x=/y", Some("b.tgz")), ("http://h/a/", None), ("http://h", None), ("http://h/..", None)]
        {
            assert_eq!(file_name(url).as_deref(), expected, "{url}");
        }
    }
}
