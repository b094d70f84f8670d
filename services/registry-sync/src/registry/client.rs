//! Blobs of a build's client, in an OCI layout on its machine: the gateway that has its session brings them into the layer
//! store, and takes them from there.

use bus::{Target, calls};
use futures::{StreamExt as _, TryStreamExt as _};
use model::Digest;

use super::Remote;
use crate::error::Error;
use crate::layout::{Layout, Source};

/// Blobs that go to a client at once.
const AT_ONCE: usize = 2;

/// How large a blob may be, in bytes.
pub(super) enum Size {
    /// What its descriptor says.
    Of(u64),
    /// Of a document whose digest is all that is known.
    AtMost(u64),
}

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
    /// `NotFound` where the client has none, `Corrupt` where it sends another one, or more or less of it; `Unavailable`
    /// where it is away, and may come back.
    pub async fn bring(&self, digest: &Digest, size: Size, lease: &str) -> Result<(), Error> {
        let (content, digest) = (Some(self.content.clone()), digest.to_string());
        let (max_bytes, exact) = match size {
            Size::Of(bytes) => (bytes, true),
            Size::AtMost(bytes) => (bytes, false),
        };
        let request = proto::ContentGet { content, digest, lease: lease.to_owned(), max_bytes, exact };
        let brought = self.remote.bus.call_while_wanted::<calls::ContentGet>(&self.gateway(), &request, None).await;
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
        let given = self.remote.bus.call_while_wanted::<calls::ContentPut>(&self.gateway(), &request, None).await;
        given.map(drop).map_err(of_client)
    }
}

/// A gateway that has ended is no lost registry-sync: another one would find the client away, too.
fn of_client(error: bus::Error) -> Error {
    Error::Remote { kind: error.kind(), text: error.message().to_owned() }
}
