use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use model::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;

use crate::files::Blobs;
use crate::{Error, space};

/// Bytes that are gathered before a thread hashes and writes them.
const BATCH_BYTES: usize = 1 << 20;

/// A blob that is being written. Dropped before [`Upload::commit`], it leaves nothing.
///
/// While one batch is hashed and written on a blocking thread the next one is gathered; between batches an idle
/// upload holds no thread.
pub struct Upload {
    blobs: Blobs,
    writing: Writing,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    received_bytes: u64,
}

enum Writing {
    Idle(Box<Partial>),
    Busy(JoinHandle<Result<Box<Partial>, Error>>),
    /// An earlier batch failed; there is nothing left to write to.
    Broken,
}

/// The temporary file and the state of its hash.
struct Partial {
    file: NamedTempFile,
    hasher: Sha256,
}

impl Upload {
    pub(crate) fn new(blobs: Blobs, file: NamedTempFile) -> Self {
        let partial = Partial { file, hasher: Sha256::new() };
        Self {
            blobs,
            writing: Writing::Idle(Box::new(partial)),
            gathered: Vec::new(),
            gathered_bytes: 0,
            received_bytes: 0,
        }
    }

    /// Bytes received so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Appends `chunk`. After an error the upload is of no more use.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.received_bytes += chunk.len() as u64;
        self.gathered_bytes += chunk.len();
        self.gathered.push(chunk);
        if self.gathered_bytes >= BATCH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Starts to write what was gathered, so that an upload that waits holds no memory.
    pub async fn rest(&mut self) -> Result<(), Error> {
        self.flush().await
    }

    /// Puts the blob in place and says its digest and size in bytes; a blob that is there already stays as it is.
    ///
    /// With `lease` it is pinned in the same moment, so that no removal comes in between.
    ///
    /// # Errors
    /// `WrongDigest` when `wanted` is another digest, `NoLease` when the lease is over; then nothing stays.
    pub async fn commit(mut self, wanted: Option<&Digest>, lease: Option<&str>) -> Result<(Digest, u64), Error> {
        self.flush().await?;
        let Partial { file, hasher } = *self.settle().await?;
        let digest = Digest::from_sha256(&hasher.finalize().into());
        if let Some(wanted) = wanted.filter(|wanted| **wanted != digest) {
            return Err(Error::WrongDigest { wanted: wanted.clone(), got: digest });
        }
        let (blobs, placed, lease) = (self.blobs.clone(), digest.clone(), lease.map(str::to_owned));
        blocking(move || blobs.place(file, &placed, lease.as_deref())).await?;
        Ok((digest, self.received_bytes))
    }

    /// Starts to write what was gathered.
    async fn flush(&mut self) -> Result<(), Error> {
        let partial = self.settle().await?;
        let batch = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let (root, floor_bytes) = (self.blobs.root().to_owned(), self.blobs.free_floor_bytes());
        self.writing =
            Writing::Busy(tokio::task::spawn_blocking(move || write_batch(partial, &batch, &root, floor_bytes)));
        Ok(())
    }

    /// Waits for the batch that is being written and takes the file over. Loses nothing when it is cancelled.
    async fn settle(&mut self) -> Result<Box<Partial>, Error> {
        if let Writing::Busy(task) = &mut self.writing {
            let outcome = task.await;
            self.writing = Writing::Broken;
            return joined(outcome);
        }
        match std::mem::replace(&mut self.writing, Writing::Broken) {
            Writing::Idle(partial) => Ok(partial),
            Writing::Busy(_) | Writing::Broken => {
                Err(Error::io("going on with a broken upload")(std::io::ErrorKind::BrokenPipe.into()))
            }
        }
    }
}

fn write_batch(
    mut partial: Box<Partial>,
    batch: &[Bytes],
    root: &Path,
    floor_bytes: u64,
) -> Result<Box<Partial>, Error> {
    space::ensure_free(root, floor_bytes, batch.iter().map(|chunk| chunk.len() as u64).sum())?;
    for chunk in batch {
        partial.hasher.update(chunk);
        partial.file.write_all(chunk).map_err(Error::io("writing a blob"))?;
    }
    Ok(partial)
}

/// Runs `work` on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(outcome: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    outcome.unwrap_or_else(|error| Err(Error::io("running a blocking task")(std::io::Error::other(error))))
}
