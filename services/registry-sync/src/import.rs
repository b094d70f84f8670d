use std::io::{self, Read};
use std::time::Duration;

use distribution::Store;
use futures::TryStreamExt as _;
use tokio::runtime::Handle;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::error::Error;
use crate::layer::Uploader;

/// Stores a root file system, packed or not, as one layer.
pub async fn import(store: Store, stream: streams::Duplex, lease: Option<String>) -> Result<proto::Layer, Error> {
    let reader = Box::pin(stream.reader.into_async_read());
    upload(store, lease, move || SyncIoBridge::new(reader)).await
}

/// The same from a URL.
pub async fn import_url(store: Store, url: &str, lease: Option<String>) -> Result<proto::Layer, Error> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let failed = |why: String| Error::Archive(format!("failed to get {url:?}: {why}"));
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(30))
        .read_timeout(Duration::from_secs(120))
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let response = client.get(&url).send().await.map_err(|error| failed(cause(&error.without_url())))?;
    if !response.status().is_success() {
        return Err(failed(format!("server answered {}", response.status())));
    }
    let body = response.bytes_stream().map_err(|error| io::Error::other(cause(&error.without_url())));
    let reader = Box::pin(StreamReader::new(body));
    upload(store, lease, move || SyncIoBridge::new(reader)).await
}

async fn upload<R: Read>(
    store: Store,
    lease: Option<String>,
    open: impl FnOnce() -> R + Send + 'static,
) -> Result<proto::Layer, Error> {
    let uploader = Uploader { store, lease, runtime: Handle::current() };
    tokio::task::spawn_blocking(move || {
        let mut reader = open();
        let layer = uploader.upload(&mut reader).and_then(|stored| stored.layer());
        drain(&layer, &mut reader);
        layer
    })
    .await
    .map_err(|_| Error::Task)?
}

/// Reads on to the end after a failure: a client reads the answer only when all that it sends has been taken.
pub fn drain<T>(done: &Result<T, Error>, rest: &mut impl Read) {
    if done.is_err() {
        // How it ends does not matter any more.
        let _ = io::copy(rest, &mut io::sink());
    }
}

/// reqwest says what it did; why it failed is in the causes.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
