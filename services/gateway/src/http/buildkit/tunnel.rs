//! A connection inside a call: how a client of BuildKit opens a session where it has no other way to hand one over
//! (`Control/Session`).

use std::pin::Pin;

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, DuplexStream, WriteHalf};
use tokio_util::io::ReaderStream;
use tonic::{Status, Streaming};

/// What waits in each direction.
const BUFFER_BYTES: usize = 64 * 1024;

type Answers = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

/// Our end of the connection, and what goes to the client.
pub fn open(client: Streaming<BytesMessage>) -> (DuplexStream, Answers) {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let (read, write) = tokio::io::split(theirs);
    tokio::spawn(forward(client, write));
    let answers = ReaderStream::with_capacity(read, BUFFER_BYTES).map(|bytes| match bytes {
        Ok(bytes) => Ok(BytesMessage { data: bytes.to_vec() }),
        Err(error) => Err(Status::unavailable(error.to_string())),
    });
    (ours, Box::pin(answers))
}

/// Until the client goes, or nobody reads any more.
async fn forward(mut client: Streaming<BytesMessage>, mut to: WriteHalf<DuplexStream>) {
    while let Ok(Some(message)) = client.message().await {
        if to.write_all(&message.data).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
