use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use distribution::registry::Error as RegistryError;
use futures::TryStreamExt as _;
use model::DiffId;
use oci::Descriptor;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::source::BlobBytes;
use crate::error::Error;
use crate::layer::{Stored, Uploader};
use crate::lines::{Lines, Pace};

/// Chunks between the network and the unpacker.
const CHUNKS_UNDER_WAY: usize = 16;

/// Fetches a packed layer and stores it unpacked; both digests are checked. Dropped, it ends within a chunk.
///
/// # Errors
/// `Registry` when the bytes do not come or are others; `Remote` when they unpack to another layer; the layer store's own.
pub async fn download(
    bytes: BlobBytes,
    blob: &Descriptor,
    diff_id: &DiffId,
    uploader: Uploader,
    lines: &Lines,
) -> Result<Stored, Error> {
    let (sender, receiver) = mpsc::channel(CHUNKS_UNDER_WAY);
    let runtime: Handle = uploader.runtime.clone();
    let reader = Chunks { receiver, current: Bytes::new(), left: blob.size };
    let storing = runtime.spawn_blocking(move || uploader.upload(reader));
    let fed = feed(bytes, blob, sender, lines).await;
    let stored = storing.await.map_err(|_| Error::Task)?;
    // The source's failure is the cause of the reader's.
    if let Err(Fed::Source(error)) = fed {
        return Err(error);
    }
    let stored = stored.map_err(|error| match error {
        Error::Read(error) => {
            Error::Remote { kind: model::ErrorKind::Corrupt, text: format!("failed to register layer: {error}") }
        }
        error => error,
    })?;
    if stored.packed != blob.digest {
        return Err(RegistryError::WrongDigest(blob.digest.clone()).into());
    }
    if stored.diff_id != *diff_id {
        let text = "layers from manifest don't match image configuration".to_owned();
        return Err(Error::Remote { kind: model::ErrorKind::Corrupt, text });
    }
    Ok(stored)
}

enum Fed {
    Source(Error),
    /// The unpacker has ended and says why itself.
    Unpacker,
}

async fn feed(mut bytes: BlobBytes, blob: &Descriptor, sender: mpsc::Sender<Bytes>, lines: &Lines) -> Result<(), Fed> {
    let (id, mut pace, mut done) = (blob.digest.short(), Pace::default(), 0u64);
    while let Some(chunk) = bytes.try_next().await.map_err(Fed::Source)? {
        done += chunk.len() as u64;
        sender.send(chunk).await.map_err(|_| Fed::Unpacker)?;
        if pace.is_due() {
            lines.tell_bar(id, "Downloading", done, blob.size).await;
        }
    }
    lines.tell(id, "Verifying Checksum").await;
    lines.tell(id, "Download complete").await;
    Ok(())
}

/// A blocking reader of exactly `left` bytes: when the sender goes before, that is no end.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
    left: u64,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None if self.left == 0 => return Ok(0),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&'static [u8]], size: u64) -> io::Result<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(8);
        for chunk in chunks {
            sender.try_send(Bytes::from_static(chunk)).expect("room");
        }
        drop(sender);
        let mut all = Vec::new();
        Chunks { receiver, current: Bytes::new(), left: size }.read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn what_breaks_off_is_no_end() {
        assert_eq!(read(&[b"ab", b"", b"c"], 3).expect("whole"), b"abc");
        assert_eq!(read(&[b"ab"], 3).expect_err("a byte is missing").kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(&[], 0).expect("nothing"), b"");
    }
}
