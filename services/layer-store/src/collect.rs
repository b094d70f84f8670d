//! Removes blobs that nobody names any more: what a lease pinned is looked at when the lease is over, what a repository
//! showed when its link goes, and everything once at the start, since a crash forgets which those were.

use std::sync::Arc;
use std::time::{Duration, Instant};

use blobs::Blobs;
use bus::Bus;
use model::Digest;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::handlers::release;
use crate::repositories::Repositories;

/// Leases that run out by themselves are noticed so often.
const LOOK: Duration = Duration::from_secs(30);
/// Links are looked through so often at most, a quarter of their grace where that is more often.
const LINKS: Duration = Duration::from_secs(3600);
/// Digests in one question to the gateway.
const PAGE: usize = 1000;

/// What the collection looks at.
pub struct Garbage {
    pub blobs: Blobs,
    pub repositories: Repositories,
    /// How long a repository shows a blob that none of its manifests names.
    pub grace: Duration,
}

/// Runs until `cancel`. `ended` is notified when a lease was ended.
pub async fn collect(bus: Bus, garbage: Garbage, ended: Arc<Notify>, cancel: CancellationToken) {
    let Garbage { blobs, repositories, grace } = garbage;
    let mut links_at = Instant::now();
    let mut waiting: Vec<Digest> = blobs.digests().unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "blobs of nobody may stay");
        Vec::new()
    });
    loop {
        if Instant::now() >= links_at {
            waiting.extend(unnamed(&blobs, &repositories, grace).await);
            links_at = Instant::now() + LINKS.min(grace / 4);
        }
        waiting.extend(blobs.take_released());
        waiting.sort_unstable();
        waiting.dedup();
        let mut kept = Vec::new();
        for page in waiting.chunks(PAGE) {
            if let Err(error) = release(&bus, &blobs, &repositories, page.to_vec()).await {
                tracing::info!(%error, "blobs that may be nobody's stay until the next look");
                kept.extend_from_slice(page);
            }
        }
        waiting = kept;
        tokio::select! {
            () = cancel.cancelled() => return,
            () = ended.notified() => {}
            () = tokio::time::sleep(LOOK.min(grace / 4).max(Duration::from_millis(200))) => {}
        }
    }
}

/// Blobs that lost a link, off the loop's thread since every manifest is read.
async fn unnamed(blobs: &Blobs, repositories: &Repositories, grace: Duration) -> Vec<Digest> {
    let (blobs, repositories) = (blobs.clone(), repositories.clone());
    let work = tokio::task::spawn_blocking(move || repositories.remove_unnamed(&blobs, grace)).await;
    match work {
        Ok(Ok(freed)) => return freed,
        Ok(Err(error)) => tracing::warn!(%error, "links of blobs that no manifest names stay"),
        Err(error) => tracing::warn!(%error, "links of blobs that no manifest names stay"),
    }
    Vec::new()
}
