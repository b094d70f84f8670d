use std::io::{self, BufReader, Read};

use bytes::Bytes;
use distribution::{Body, Store};
use model::{DiffId, Digest};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::compression::{Compression, decompress};
use crate::error::Error;

/// Chunks under way to the layer store; each is at most the reader's buffer.
const CHUNKS_UNDER_WAY: usize = 8;
const BUFFER_BYTES: usize = 128 << 10;

/// A blob of an archive that the layer store now holds uncompressed.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Digest of the bytes as the archive has them.
    pub packed: Digest,
    pub diff_id: DiffId,
    pub size: u64,
    /// Sum of the sizes of the files inside; none when it is no tar.
    pub content_bytes: Option<u64>,
}

impl Stored {
    /// # Errors
    /// `Archive` when it is no tar and so no layer.
    pub fn layer(&self) -> Result<proto::Layer, Error> {
        let content_bytes =
            self.content_bytes.ok_or_else(|| Error::Archive(format!("layer {} is not a tar archive", self.packed)))?;
        Ok(proto::Layer {
            diff_id: self.diff_id.to_string(),
            blob: Some(proto::Descriptor {
                media_type: oci::media_type::OCI_LAYER.to_owned(),
                digest: self.diff_id.to_string(),
                size: self.size,
            }),
            content_bytes,
        })
    }
}

/// Sends blobs from a blocking reader to the layer store.
#[derive(Clone)]
pub struct Uploader {
    pub store: Store,
    pub lease: Option<String>,
    pub runtime: Handle,
}

impl Uploader {
    /// Stores `from` uncompressed, whatever it is packed with, and looks through it as a tar on the way. Blocks.
    ///
    /// # Errors
    /// `Read` when `from` breaks off or cannot be unpacked; `Store` as the layer store says.
    pub fn upload(&self, from: impl Read) -> Result<Stored, Error> {
        let mut packed = Hashed { inner: from, hash: Sha256::new(), size: 0 };
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS_UNDER_WAY);
        let (store, lease) = (self.store.clone(), self.lease.clone());
        let upload = self.runtime.spawn(async move {
            store.upload(Body::wrap_stream(ReceiverStream::new(receiver)), lease.as_deref()).await
        });
        let scanned = scan(&mut packed, Some(&sender));
        if let Err(error) = &scanned {
            // An error in the body breaks the request off, so that half a blob is never taken for one.
            let _ = sender.blocking_send(Err(io::Error::other(error.to_string())));
        }
        drop(sender);
        let uploaded = self.runtime.block_on(upload).map_err(|_| Error::Task)?;
        let (compression, content_bytes) = match (scanned, &uploaded) {
            (Ok(found), _) => found,
            // The reader fails with a broken pipe when the store gave up first; the store's words say why.
            (Err(error), Err(_)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(uploaded.err().map_or(Error::Task, Error::Store));
            }
            (Err(error), _) => return Err(Error::Read(error)),
        };
        let (digest, size) = uploaded?;
        let packed = match compression {
            Compression::None => digest.clone(),
            _ => Digest::from_sha256(&packed.hash.finalize().into()),
        };
        Ok(Stored { packed, diff_id: DiffId::new(digest), size, content_bytes })
    }

    /// Whether the layer store has this blob, which the lease keeps from now on. Blocks.
    pub fn holds(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.runtime.block_on(self.store.has(digest, self.lease.as_deref()))?.is_some())
    }

    /// Checks that `from` is the blob that the layer store holds already.
    ///
    /// # Errors
    /// `Archive` when it is another one; `Read` when `from` breaks off.
    pub fn look_through(&self, from: impl Read, known: &Digest) -> Result<Stored, Error> {
        let mut packed = Hashed { inner: from, hash: Sha256::new(), size: 0 };
        let (compression, content_bytes) = scan(&mut packed, None).map_err(Error::Read)?;
        let (digest, size) = (Digest::from_sha256(&packed.hash.finalize().into()), packed.size);
        if compression != Compression::None || digest != *known {
            return Err(Error::Archive(format!("invalid archive: blob {known} has another digest")));
        }
        Ok(Stored { packed: digest.clone(), diff_id: DiffId::new(digest), size, content_bytes })
    }
}

/// Unpacks, sends on, and sums up the sizes of a tar's files.
fn scan<R: Read>(
    packed: &mut Hashed<R>,
    sender: Option<&mpsc::Sender<io::Result<Bytes>>>,
) -> io::Result<(Compression, Option<u64>)> {
    let (compression, unpacked) = decompress(&mut *packed)?;
    let mut tee = BufReader::with_capacity(BUFFER_BYTES, Tee { inner: unpacked, sender, failed: false });
    let content_bytes = sizes(&mut tee);
    if tee.get_ref().failed {
        // The tar reader saw the failure as its own; it is the stream that broke.
        return Err(content_bytes.err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
    }
    io::copy(&mut tee, &mut io::sink())?;
    drop(tee);
    io::copy(packed, &mut io::sink())?;
    Ok((compression, content_bytes.ok()))
}

fn sizes(tar: impl Read) -> io::Result<u64> {
    let mut sum = 0u64;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let entry = entry?;
        // As Docker's overlay2 counts: a symbolic link is as long as its target.
        let target = if entry.header().entry_type().is_symlink() { entry.link_name_bytes() } else { None };
        sum = sum.saturating_add(target.map_or(entry.size(), |target| target.len() as u64));
    }
    Ok(sum)
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
    size: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

/// Sends all that is read to the layer store, where it is wanted.
struct Tee<'a, R> {
    inner: R,
    sender: Option<&'a mpsc::Sender<io::Result<Bytes>>>,
    failed: bool,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer).inspect_err(|_| self.failed = true)?;
        if count > 0
            && let Some(sender) = self.sender
            && sender.blocking_send(Ok(Bytes::copy_from_slice(&buffer[..count]))).is_err()
        {
            self.failed = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(count)
    }
}
