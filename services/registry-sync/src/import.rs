use distribution::Store;
use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;

use crate::error::Error;
use crate::layer::Uploader;

/// Stores a root file system, packed or not, as one layer.
pub async fn import(store: Store, stream: streams::Duplex, lease: Option<String>) -> Result<proto::Layer, Error> {
    let uploader = Uploader { store, lease, runtime: Handle::current() };
    let reader = Box::pin(stream.reader.into_async_read());
    tokio::task::spawn_blocking(move || uploader.upload(SyncIoBridge::new(reader))?.layer())
        .await
        .map_err(|_| Error::Task)?
}
