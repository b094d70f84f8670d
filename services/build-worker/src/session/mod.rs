//! One build, from its lease to its end.

mod classic;
mod graph;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, Target, calls};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::context::Context;
use crate::failure::{Doing as _, Failure};
use crate::layers::{Layers, blocking};
use crate::lifeline::Renewals;
use crate::log::Log;
use crate::machine;
use crate::patience::{PATIENCE, patiently};
use crate::worker::Worker;

/// Blobs of a build are kept so long after the last renewal.
pub const BLOBS_TTL_SECONDS: u32 = 120;

pub struct Session {
    pub worker: Worker,
    pub lease: proto::BuildLease,
    /// Of the lease.
    pub renewals: Renewals,
    /// The client, or whoever asked for it, wants no more of this build.
    pub cancel: CancellationToken,
    /// This worker is told to end.
    pub stop: CancellationToken,
}

/// How long a lease lasts without being renewed.
pub fn ttl(lease: &proto::BuildLease) -> Duration {
    Duration::from_secs(u64::from(lease.ttl_seconds.max(3)))
}

impl Session {
    /// Builds and reports; says in a word how it went.
    pub async fn run(self) -> &'static str {
        let options = self.lease.options.clone().unwrap_or_default();
        let log = Arc::new(Log::new(self.worker.bus.clone(), &self.lease.build_id, self.lease.attempt, options.quiet));
        // Cancelled for any reason: by the client, by a lost lease, by the end of this worker.
        let halt = self.cancel.child_token();
        let _renewing = self.watch(halt.clone());
        let folder = self.worker.machine.build_folder(&self.lease.build_id);
        let mut outcome = match options.graph {
            true => self.build_graph(options, log.clone(), halt).await,
            false => self.build_classic(options, log.clone(), halt).await,
        };
        if self.renewals.is_lost() {
            outcome = outcome.map_err(|_| Failure::Lost);
        }
        let word = match outcome {
            Ok(()) => "built",
            Err(Failure::Lost) => "lost",
            Err(error) => {
                self.report(&log, &error).await;
                if self.cancel.is_cancelled() { "cancelled" } else { "failed" }
            }
        };
        let removed = blocking(move || match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).doing(|| folder.display().to_string()),
            _ => Ok(()),
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "a build's folder stays");
        }
        word
    }

    /// Where the build's layers come from and go to, under a lease of its own.
    async fn layers(&self) -> Result<Layers, Failure> {
        let Worker { bus, store, snapshots, machine, .. } = self.worker.clone();
        let owner = machine::owner(&self.lease.build_id);
        let blobs = proto::LeaseCreate { owner: owner.clone(), ttl_seconds: BLOBS_TTL_SECONDS };
        let blobs = bus.call::<calls::LeaseCreate>(&Target::Store, &blobs).await?;
        Ok(Layers::new(bus, snapshots, store, blobs.id, owner, machine.builds))
    }

    /// The next build with the same context finds it here.
    async fn keep_context(&self, context: Arc<Context>) {
        let contexts = self.worker.contexts.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || contexts.keep(&context)).await {
            tracing::warn!(%error, "a context could not be kept");
        }
    }

    /// Waits for what a failed build has made, unless its client leaves; where others follow a step of it, in any case.
    async fn unless_left(
        &self,
        halt: &CancellationToken,
        followed: bool,
        keep: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = halt.cancelled(), if !followed => Ok(()),
            kept = keep => kept,
        }
    }

    /// Lets go of what the build has held; `followed`: others go on from a step of it.
    async fn release(&self, layers: &Layers, keeping: DropGuard, followed: bool) {
        layers.release();
        drop(keeping);
        let lease = proto::Lease { id: layers.lease.clone() };
        // Those others pin its layers for themselves, in a moment: they stay until this lease runs out.
        if !followed && let Err(error) = self.worker.bus.call::<calls::LeaseEnd>(&Target::Store, &lease).await {
            tracing::debug!(%error, "the blobs' lease runs out by itself");
        }
    }

    /// Tells the gateway, then whoever reads the log. Each may be gone; the lease then runs out.
    async fn report(&self, log: &Log, error: &Failure) {
        let finish = proto::BuildFinish {
            build_id: self.lease.build_id.clone(),
            attempt: self.lease.attempt,
            image_id: String::new(),
            error: error.to_string(),
            error_code: error.code(),
            ..Default::default()
        };
        if let Err(error) = patiently(|| self.worker.bus.call::<calls::BuildFinish>(&Target::Gateway, &finish)).await
            // Of a cancelled build the gateway wants no end.
            && !self.cancel.is_cancelled()
        {
            tracing::warn!(%error, build_id = %finish.build_id, "a failed build could not be reported");
        }
        if let Err(error) = log.error(&finish.error, finish.error_code).await {
            tracing::warn!(%error, build_id = %finish.build_id, "a build's log has no end");
        }
    }

    /// Renews the lease. Without an answer it counts as lost at two thirds of its time, before another may have it. As long
    /// as the bus says that there is no gateway, nobody can give it to another, and the first one that starts prolongs it.
    fn watch(&self, halt: CancellationToken) -> DropGuard {
        let done = CancellationToken::new();
        let (bus, stop, ended) = (self.worker.bus.clone(), self.stop.clone(), done.clone());
        let (cancel, renewals) = (self.cancel.clone(), self.renewals.clone());
        let renew = proto::BuildRenew { build_id: self.lease.build_id.clone(), attempt: self.lease.attempt };
        let ttl = ttl(&self.lease);
        tokio::spawn(async move {
            let (mut renewed, mut answered) = (Instant::now(), Instant::now());
            loop {
                tokio::select! {
                    () = ended.cancelled() => return,
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(ttl / 3) => {}
                }
                let answer =
                    tokio::time::timeout(ttl / 3, bus.call::<calls::BuildRenew>(&Target::Gateway, &renew)).await;
                match answer {
                    Ok(Ok(reply)) if reply.cancelled => return cancel.cancel(),
                    Ok(Ok(_)) => {
                        (renewed, answered) = (Instant::now(), Instant::now());
                        renewals.renewed();
                    }
                    Ok(Err(error)) if error.is_absent() && answered.elapsed() < PATIENCE => {
                        renewed = Instant::now();
                        renewals.renewed();
                    }
                    Ok(Err(error))
                        if matches!(error.kind(), model::ErrorKind::NotFound | model::ErrorKind::Conflict) =>
                    {
                        break;
                    }
                    Ok(Err(_)) | Err(_) if renewed.elapsed() > ttl * 2 / 3 => break,
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            renewals.lose();
            halt.cancel();
        });
        done.drop_guard()
    }
}

/// Renews a lease of blobs as long as this lives.
pub fn keep_blobs(bus: Bus, lease: &str) -> DropGuard {
    let done = CancellationToken::new();
    let ended = done.clone();
    let renew = proto::LeaseRenew { id: lease.to_owned(), ttl_seconds: BLOBS_TTL_SECONDS };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(u64::from(BLOBS_TTL_SECONDS) / 3)) => {}
            }
            if let Err(error) = bus.call::<calls::LeaseRenew>(&Target::Store, &renew).await {
                tracing::warn!(%error, "the blobs' lease could not be renewed");
            }
        }
    });
    done.drop_guard()
}
