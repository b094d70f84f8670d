use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use distribution::{Body, Store};
use flate2::read::GzEncoder;
use model::Digest;
use oci::media_type;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::manifest::Blob;
use crate::error::Error;

/// A third of the time of gzip's usual level, for about a twentieth more bytes.
const LEVEL: u32 = 3;
const CHUNK_BYTES: usize = 128 << 10;
pub const CHUNKS_UNDER_WAY: usize = 8;

/// Packs a layer of the layer store into the layer store, under the lease. The same layer gives the same bytes: the
/// header has no time and no name. `done` counts the plain bytes; `copy` gets what comes out as long as it takes it,
/// and ends without a word where the packing fails.
pub async fn pack(
    store: &Store,
    diff_id: &Digest,
    lease: &str,
    done: Arc<AtomicU64>,
    copy: mpsc::Sender<Bytes>,
) -> Result<Blob, Error> {
    let plain = Metered { inner: store.get_to_reader(diff_id).await?, done };
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS_UNDER_WAY);
    let packing = tokio::task::spawn_blocking(move || {
        let mut copy = Some(copy);
        let mut packed = GzEncoder::new(plain, flate2::Compression::new(LEVEL));
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let sent = match packed.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    chunk.truncate(count);
                    let chunk = Bytes::from(chunk);
                    copy = copy.filter(|copy| copy.blocking_send(chunk.clone()).is_ok());
                    sender.blocking_send(Ok(chunk))
                }
                Err(error) => {
                    let told = io::Error::other(error.to_string());
                    // The upload breaks off with it.
                    let _ = sender.blocking_send(Err(error));
                    return Err(told);
                }
            };
            if sent.is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    });
    let stored = store.upload(Body::wrap_stream(ReceiverStream::new(receiver)), Some(lease)).await;
    let packed = packing.await.map_err(|_| Error::Task)?;
    let (digest, size) = match (stored, packed) {
        (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Error::Read(error)),
        (stored, _) => stored?,
    };
    Ok(Blob { media_type: media_type::DOCKER_LAYER_GZIP, digest, size })
}

struct Metered<R> {
    inner: R,
    done: Arc<AtomicU64>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.done.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
