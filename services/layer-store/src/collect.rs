//! Removes blobs that nobody names any more: what a lease pinned is looked at when the lease is over, and everything
//! once at the start, since a crash forgets which leases had ended.

use std::sync::Arc;
use std::time::Duration;

use blobs::Blobs;
use bus::Bus;
use model::Digest;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::handlers::release;
use crate::repositories::Repositories;

/// Leases that run out by themselves are noticed so often.
const LOOK: Duration = Duration::from_secs(30);
/// Digests in one question to the gateway.
const PAGE: usize = 1000;

/// Runs until `cancel`. `ended` is notified when a lease was ended.
pub async fn collect(
    bus: Bus,
    blobs: Blobs,
    repositories: Repositories,
    ended: Arc<Notify>,
    cancel: CancellationToken,
) {
    let mut waiting: Vec<Digest> = blobs.digests().unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "blobs of nobody may stay");
        Vec::new()
    });
    loop {
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
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
