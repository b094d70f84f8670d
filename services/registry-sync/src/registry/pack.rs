use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::available_parallelism;

use bytes::Bytes;
use distribution::{Body, Store};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use libdeflater::{CompressionLvl, Compressor};
use model::Digest;
use service::metrics::{self, Family, Kind};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::io::StreamReader;

use super::form::Packing;
use super::manifest::Blob;
use crate::error::Error;

/// Each block becomes a gzip member (RFC 1952, 2.2) or a zstd frame (RFC 8878, 3.1) of its own, so that several are
/// packed at once. What a block cannot refer to across its begin is about a hundredth.
const BLOCK_BYTES: usize = 1 << 20;
/// Of one layer; a push has several layers under way.
const BLOCKS_AT_ONCE: usize = 4;
/// Packed blocks that wait to be sent.
pub const BLOCKS_UNDER_WAY: usize = 2;

static PACKED: Family = Family {
    name: "boxyard_layers_packed_total",
    help: "Layers that were packed for registries, archives and caches.",
    kind: Kind::Counter,
};

/// Packs a layer of the layer store into the layer store, under the lease. The same layer gives the same bytes: the
/// headers have no time and no name. `done` counts the plain bytes; `copy` gets what comes out as long as it takes it,
/// and ends without a word where the packing fails.
pub async fn pack(
    store: &Store,
    layer: (&Digest, Packing),
    lease: &str,
    done: Arc<AtomicU64>,
    copy: mpsc::Sender<Bytes>,
) -> Result<Blob, Error> {
    let (diff_id, packing) = layer;
    let plain = StreamReader::new(store.get(diff_id).await?.map_err(io::Error::other));
    let copied =
        futures::stream::unfold((members(plain, packing, done).boxed(), Some(copy)), async |(mut members, copy)| {
            let member = members.next().await?;
            let copy = match (copy, &member) {
                (Some(copy), Ok(member)) => copy.send(member.clone()).await.is_ok().then_some(copy),
                _ => None,
            };
            Some((member, (members, copy)))
        });
    let (digest, size) = store.upload(Body::wrap_stream(copied), Some(lease)).await?;
    metrics::count(&PACKED, &[("packing", packing.name())]);
    Ok(Blob { media_type: packing.media_type(), digest, size })
}

fn members(
    plain: impl AsyncRead + Unpin + Send + 'static,
    packing: Packing,
    done: Arc<AtomicU64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let at_once = available_parallelism().map_or(1, usize::from).min(BLOCKS_AT_ONCE);
    blocks(plain)
        .map_ok(move |block| {
            let done = done.clone();
            async move {
                let bytes = block.len() as u64;
                let packed = spawn_blocking(move || member(block, packing)).await.map_err(io::Error::other)?;
                done.fetch_add(bytes, Ordering::Relaxed);
                packed
            }
        })
        .try_buffered(at_once)
}

/// All blocks but the last have their full size, however the bytes come. No bytes at all are one empty block.
fn blocks(plain: impl AsyncRead + Unpin + Send + 'static) -> impl Stream<Item = io::Result<Vec<u8>>> + Send {
    futures::stream::try_unfold((plain, true), async |(mut plain, is_first)| {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        (&mut plain).take(BLOCK_BYTES as u64).read_to_end(&mut block).await?;
        Ok((is_first || !block.is_empty()).then_some((block, (plain, false))))
    })
}

fn member(block: Vec<u8>, packing: Packing) -> io::Result<Bytes> {
    match packing {
        Packing::Plain => Ok(block.into()),
        Packing::Gzip { level } => gzip_member(&block, level),
        Packing::Zstd { level } => Ok(zstd::bulk::compress(&block, level)?.into()),
    }
}

fn gzip_member(block: &[u8], level: i32) -> io::Result<Bytes> {
    let level = CompressionLvl::new(level).map_err(|error| io::Error::other(format!("{error:?}")))?;
    let mut compressor = Compressor::new(level);
    let mut packed = vec![0; compressor.gzip_compress_bound(block.len())];
    let bytes = compressor.gzip_compress(block, &mut packed).map_err(io::Error::other)?;
    packed.truncate(bytes);
    Ok(packed.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    async fn packed(plain: Vec<u8>, chunk_bytes: usize, packing: Packing) -> (Vec<u8>, u64) {
        let done = Arc::new(AtomicU64::new(0));
        let chunks: Vec<_> = plain.chunks(chunk_bytes).map(|chunk| io::Result::Ok(chunk.to_vec().into())).collect();
        let plain = StreamReader::<_, Bytes>::new(futures::stream::iter(chunks));
        let members: Vec<Bytes> = members(plain, packing, done.clone()).try_collect().await.expect("packs");
        (members.concat(), done.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn what_is_packed_is_one_file_whatever_the_chunks_are() {
        for packing in [Packing::Gzip { level: 1 }, Packing::Zstd { level: 3 }, Packing::Plain] {
            for bytes in [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 7] {
                let plain: Vec<u8> = (0..bytes).map(|at| (at / 3) as u8).collect();
                let (file, done) = packed(plain.clone(), 1000, packing).await;
                assert_eq!(done, bytes as u64);
                assert_eq!(file, packed(plain.clone(), 1 << 19, packing).await.0, "{bytes}");
                let (_, mut reader) = crate::compression::decompress(&file[..]).expect("starts");
                let mut unpacked = Vec::new();
                reader.read_to_end(&mut unpacked).expect("unpacks");
                assert!(unpacked == plain, "{packing:?} {bytes}");
            }
        }
    }
}
