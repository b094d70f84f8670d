use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use rustix::io::ReadWriteFlags;

use super::range::Part;

/// Bytes of a blob in memory at one time for each request.
const CHUNK_BYTES: usize = 256 << 10;

/// Streams a part of a file. What the kernel holds in memory is read at once; only what must come from the disk goes
/// to a blocking thread.
pub fn body(file: File, part: Part) -> Body {
    let Part { first, count } = part;
    let state = (Arc::new(file), first, first + count);
    Body::from_stream(futures::stream::try_unfold(state, |(file, at, end)| async move {
        if at == end {
            return Ok::<_, io::Error>(None);
        }
        let wanted = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let chunk = match cached(&file, at, wanted) {
            Some(chunk) => chunk,
            None => {
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || from_disk(&file, at, wanted));
                read.await.map_err(io::Error::other)??
            }
        };
        let next = at + chunk.len() as u64;
        Ok(Some((chunk, (file, next, end))))
    }))
}

/// None when the kernel would have to wait for the disk.
fn cached(file: &File, at: u64, wanted: usize) -> Option<Bytes> {
    let mut bytes = vec![0; wanted];
    let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut bytes)], at, ReadWriteFlags::NOWAIT).ok()?;
    bytes.truncate(read);
    (read > 0).then(|| bytes.into())
}

fn from_disk(file: &File, at: u64, wanted: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; wanted];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}
