//! Blobs of a build's client, in an OCI layout on its machine: the gateway that has its session brings them into the layer
//! store, and takes them from there.

use bus::{Target, calls};
use futures::{StreamExt as _, TryStreamExt as _};
use model::{Digest, ErrorKind};

use super::Remote;
use crate::error::Error;
use crate::layout::{Layout, Source};

/// Blobs that go to a client at once.
const AT_ONCE: usize = 2;

pub(super) struct Client {
    pub remote: Remote,
    content: proto::ClientContent,
}

impl Client {
    pub fn new(remote: Remote, content: proto::ClientContent) -> Self {
        Self { remote, content }
    }

    fn gateway(&self) -> Target {
        Target::GatewayAt(self.content.gateway.clone())
    }

    /// The layer store has the blob then.
    ///
    /// # Errors
    /// `NotFound` where the client has none, `Corrupt` where it sends another one.
    pub async fn bring(&self, digest: &Digest, lease: &str) -> Result<(), Error> {
        let (content, digest) = (Some(self.content.clone()), digest.to_string());
        let request = proto::ContentGet { content, digest, lease: lease.to_owned() };
        let brought = self.remote.bus.call::<calls::ContentGet>(&self.gateway(), &request).await;
        brought.map(drop).map_err(of_client)
    }

    /// The client has all blobs of the layout then; pages at its top are the client's own affair.
    pub async fn give(&self, layout: Layout, lease: &str) -> Result<(), Error> {
        let giving = layout.blobs.into_iter().map(|(digest, source)| self.give_one(digest, source, lease));
        futures::stream::iter(giving).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn give_one(&self, digest: Digest, source: Source, lease: &str) -> Result<(), Error> {
        let size = match source {
            Source::Store(size) => size,
            Source::Here(bytes) => {
                self.remote.store.put_bytes(&bytes, Some(lease)).await?;
                bytes.len() as u64
            }
        };
        let request = proto::ContentPut { content: Some(self.content.clone()), digest: digest.to_string(), size };
        let given = self.remote.bus.call::<calls::ContentPut>(&self.gateway(), &request).await;
        given.map(drop).map_err(of_client)
    }
}

/// A client that has gone is gone for every registry-sync: none needs to be asked again.
fn of_client(error: bus::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::Unavailable => ErrorKind::Internal,
        kind => kind,
    };
    Error::Remote { kind, text: error.message().to_owned() }
}
