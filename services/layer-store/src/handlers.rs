//! What the store answers on the bus: the lifetime of blobs, and how full it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use blobs::Blobs;
use bus::{Bus, Error, Router, Target, calls};
use model::Digest;
use tokio::sync::Notify;

use crate::repositories::Repositories;

/// A lease without a time to live of its own gets this.
const DEFAULT_TTL_SECONDS: u32 = 600;
/// Blobs in one answer.
const PAGE: usize = 2000;

/// `ended` is notified when a lease was ended.
pub fn router(bus: &Bus, blobs: Blobs, repositories: Repositories, ended: Arc<Notify>) -> Router {
    let bus = bus.clone();
    let (create, renew, end, usage, pin) = (blobs.clone(), blobs.clone(), blobs.clone(), blobs.clone(), blobs.clone());
    let (listed, held) = ((blobs.clone(), repositories.clone()), (blobs.clone(), repositories.clone()));
    Router::new()
        .on::<calls::LeaseCreate, _, _>(move |request| {
            let blobs = create.clone();
            blocking(move || {
                let proto::LeaseCreate { owner, ttl_seconds } = request;
                let id = blobs.lease(&owner, ttl(ttl_seconds)).map_err(refused)?;
                Ok(proto::Lease { id })
            })
        })
        .on::<calls::LeaseRenew, _, _>(move |request| {
            let blobs = renew.clone();
            blocking(move || {
                let proto::LeaseRenew { id, ttl_seconds } = request;
                blobs.renew(&id, ttl(ttl_seconds)).map_err(refused)?;
                Ok(proto::Empty {})
            })
        })
        .on::<calls::LeaseEnd, _, _>(move |proto::Lease { id }| {
            let (blobs, ended) = (end.clone(), ended.clone());
            blocking(move || {
                blobs.end(&id);
                ended.notify_one();
                Ok(proto::Empty {})
            })
        })
        .on::<calls::BlobsPin, _, _>(move |request| {
            let blobs = pin.clone();
            blocking(move || {
                let proto::BlobsPin { lease, digests } = request;
                let mut missing = Vec::new();
                for digest in parsed(digests)? {
                    blobs.pin(&lease, &digest).map_err(refused)?;
                    if blobs.size(&digest).map_err(refused)?.is_none() {
                        missing.push(digest.to_string());
                    }
                }
                Ok(proto::BlobsPinReply { missing })
            })
        })
        .on::<calls::Usage, _, _>(move |proto::Empty {}| {
            let blobs = usage.clone();
            blocking(move || {
                let blobs::Usage { blob_count, blob_bytes, free_bytes } = blobs.usage().map_err(refused)?;
                Ok(proto::StoreUsage { blob_count, blob_bytes, free_bytes })
            })
        })
        .on::<calls::BlobsList, _, _>(move |request| {
            let (blobs, repositories) = listed.clone();
            blocking(move || list(&blobs, &repositories, &request.after))
        })
        .on::<calls::BlobHolders, _, _>(move |request| {
            let (blobs, repositories) = held.clone();
            blocking(move || holders(&blobs, &repositories, &request.digest))
        })
        .on::<calls::BlobsRelease, _, _>(move |request| {
            let (bus, blobs, repositories) = (bus.clone(), blobs.clone(), repositories.clone());
            async move { release(&bus, &blobs, &repositories, parsed(request.digests)?).await }
        })
}

fn list(blobs: &Blobs, repositories: &Repositories, after: &str) -> Result<proto::BlobsListReply, Error> {
    let mut digests = blobs.digests().map_err(refused)?;
    digests.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    digests.drain(..digests.partition_point(|digest| digest.as_str() <= after));
    let more = digests.len() > PAGE;
    digests.truncate(PAGE);
    let pinned = blobs.pinned();
    let shown = repositories.shown().map_err(|error| Error::internal(error.to_string()))?;
    let mut listed = Vec::new();
    for digest in digests {
        // One that goes meanwhile is not there.
        if let Some(size) = blobs.size(&digest).map_err(refused)? {
            let (leased, shown) = (pinned.contains(&digest), shown.contains(&digest));
            listed.push(proto::StoredBlob { digest: digest.to_string(), size, leased, shown });
        }
    }
    Ok(proto::BlobsListReply { blobs: listed, more })
}

fn holders(blobs: &Blobs, repositories: &Repositories, digest: &str) -> Result<proto::BlobHoldersReply, Error> {
    let digest: Digest = digest.parse().map_err(|error| Error::invalid(format!("{digest}: {error}")))?;
    let size = blobs.size(&digest).map_err(refused)?;
    let leases = blobs.lease_holders(&digest).into_iter();
    let shown = repositories.holders(blobs, &digest).map_err(|error| Error::internal(error.to_string()))?;
    Ok(proto::BlobHoldersReply {
        found: size.is_some(),
        size: size.unwrap_or(0),
        leases: leases.map(|(owner, ends)| proto::LeaseHolder { owner, ends_at_ms: ends.cast_signed() }).collect(),
        repositories: shown
            .into_iter()
            .map(|holder| proto::RepositoryHolder {
                name: holder.name,
                manifests: holder.manifests.iter().map(Digest::to_string).collect(),
                tags: holder.tags,
            })
            .collect(),
    })
}

/// Mark, ask the gateway, look again, unlink: a blob that is pinned or written meanwhile loses its mark.
pub async fn release(
    bus: &Bus,
    blobs: &Blobs,
    repositories: &Repositories,
    asked: Vec<Digest>,
) -> Result<proto::BlobsReleaseReply, Error> {
    let (blobs, repositories) = (blobs.clone(), repositories.clone());
    let marked = blobs.mark(&asked);
    let question = proto::BlobsInUse { digests: marked.digests().iter().map(Digest::to_string).collect() };
    let answer = bus.call::<calls::BlobsInUse>(&Target::Gateway, &question).await?;
    let in_use: HashSet<String> = answer.digests.into_iter().collect();
    blocking(move || {
        let removed = blobs
            .remove(marked, |digest| !in_use.contains(digest.as_str()) && !repositories.names(digest))
            .map_err(refused)?;
        let freed_bytes = removed.iter().map(|(_, bytes)| bytes).sum();
        let is_here = |digest: &&Digest| matches!(blobs.size(digest), Ok(Some(_)));
        let kept = asked.iter().filter(is_here).map(Digest::to_string).collect();
        if !removed.is_empty() {
            tracing::info!(count = removed.len(), freed_bytes, "blobs released");
        }
        Ok(proto::BlobsReleaseReply { freed_bytes, kept })
    })
    .await
}

fn parsed(digests: Vec<String>) -> Result<Vec<Digest>, Error> {
    let parse = |text: String| text.parse().map_err(|error| Error::invalid(format!("{text}: {error}")));
    digests.into_iter().map(parse).collect()
}

fn ttl(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(if seconds == 0 { DEFAULT_TTL_SECONDS } else { seconds }))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error.to_string())))
}

fn refused(error: blobs::Error) -> Error {
    if error.kind() == model::ErrorKind::Internal {
        tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
    }
    Error::new(error.kind(), error.to_string())
}
