use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use blobs::Upload;
use futures::StreamExt as _;

use super::refusal::Refusal;

/// What is still read of a body that is refused, so that the client gets to read the answer instead of a reset.
const DRAIN_BYTES: usize = 256 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Why a body did not get into an upload.
pub enum Failed {
    /// The body broke off; the upload holds what came.
    Broken(Refusal),
    /// The upload is of no more use: the disk is full, most likely.
    Unwritten(Refusal),
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        let (Failed::Broken(refusal) | Failed::Unwritten(refusal)) = failed;
        refusal
    }
}

/// Writes the whole body to `upload`.
pub async fn into_upload(body: Body, upload: &mut Upload) -> Result<(), Failed> {
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Failed::Broken(Refusal::broken_off(&error)))?;
        if let Err(error) = upload.write(chunk).await {
            drain(stream).await;
            return Err(Failed::Unwritten(error.into()));
        }
    }
    Ok(())
}

/// Reads a refused body to its end, within limits.
pub async fn refuse(body: Body, refusal: impl Into<Refusal>) -> Refusal {
    drain(body.into_data_stream()).await;
    refusal.into()
}

async fn drain(mut stream: BodyDataStream) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            bytes += chunk.len();
            if bytes > DRAIN_BYTES {
                return;
            }
        }
    };
    // A client that sends on and on gets its reset after all.
    let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
}
