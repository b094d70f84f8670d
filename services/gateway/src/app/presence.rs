//! This gateway among others on one database. Each process has a session there, which it renews; what the session of another
//! has left is ended by whoever sees it fall silent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metadata::Session;
use tokio_util::sync::CancellationToken;

use super::{App, Outcome, orphans};

const PERIOD: Duration = Duration::from_secs(5);
/// A session that is not renewed for so long has ended.
const TTL: Duration = Duration::from_secs(20);
const TTL_MS: i64 = TTL.as_millis() as i64;

impl App {
    /// Begins this process's session. What an earlier process of the same id left is ended.
    pub async fn begin_session(&self, id: &str) -> Outcome<()> {
        self.db.begin_session(id, &super::random_id()[..16], TTL_MS).await?;
        Ok(self.db.prolong_leases(super::builds::LEASE_MS).await?)
    }

    /// What a gateway that was killed left undone: builds without their clients, exited containers with AutoRemove, ends of
    /// builds that are not recorded.
    pub async fn finish_what_was_left(&self) {
        self.see_to_orphans().await;
        if let Err(error) = self.remove_all_done().await {
            tracing::warn!(%error, "exited containers with AutoRemove stay");
        }
        if let Err(error) = self.remember_all().await {
            tracing::warn!(%error, "ends of builds are not recorded");
        }
    }

    async fn see_to_orphans(&self) {
        if let Err(error) = self.end_orphans().await {
            tracing::warn!(%error, "builds whose gateway has gone are not seen to");
        }
    }
}

/// Renews the session until `cancel`, and finishes what others leave. On a database that nobody else can open there is
/// nothing to do but for the builds that an earlier process has left. Returns early when another process has taken this
/// gateway's id.
pub async fn keep_session(app: Arc<App>, id: String, cancel: CancellationToken) {
    if !app.db.is_shared() {
        tokio::select! {
            () = cancel.cancelled() => return,
            // Whoever of its clients has not come back by now does not.
            () = tokio::time::sleep(orphans::PATIENCE + PERIOD) => app.see_to_orphans().await,
        }
        return cancel.cancelled().await;
    }
    let mut steady_since = Instant::now();
    loop {
        tokio::select! {
            () = cancel.cancelled() => {
                if let Err(error) = app.db.end_session().await {
                    tracing::warn!(%error, "this gateway's session ends by itself");
                }
                return;
            }
            () = tokio::time::sleep(PERIOD) => {}
        }
        match app.db.renew_session(&id, TTL_MS).await {
            Ok(Session::Renewed) => {}
            Ok(Session::Revived) => {
                tracing::warn!(id, "this gateway was taken for dead: what it waited for was ended");
                steady_since = Instant::now();
            }
            Ok(Session::Taken) => {
                tracing::error!(id, "another process runs as this gateway: each needs an --id of its own");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "this gateway's session could not be renewed");
                steady_since = Instant::now();
                continue;
            }
        }
        // After an outage of the database the others need as long as this one to come back.
        if steady_since.elapsed() > TTL {
            look_after_others(&app).await;
        }
    }
}

async fn look_after_others(app: &App) {
    match app.db.end_silent_sessions().await {
        Ok(gone) if gone.is_empty() => {
            // One that ended by itself has left builds too.
            app.see_to_orphans().await;
        }
        Ok(gone) => {
            tracing::warn!(?gone, "gateways fell silent");
            app.finish_what_was_left().await;
        }
        Err(error) => tracing::warn!(%error, "gateways that fell silent are not known"),
    }
}
