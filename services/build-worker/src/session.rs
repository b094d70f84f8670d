//! One build, from its lease to its end.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Target, calls};
use model::short_id;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::builder::{Builder, Parts};
use crate::context::{self, Context};
use crate::failure::{Doing as _, Failure};
use crate::layers::{Layers, blocking};
use crate::log::Log;
use crate::machine;
use crate::plan::Plan;
use crate::worker::Worker;

/// Blobs of a build are kept so long after the last renewal.
const BLOBS_TTL_SECONDS: u32 = 120;

pub struct Session {
    pub worker: Worker,
    pub lease: proto::BuildLease,
    /// The client, or whoever asked for it, wants no more of this build.
    pub cancel: CancellationToken,
    /// This worker is told to end.
    pub stop: CancellationToken,
}

impl Session {
    /// Builds and reports; says in a word how it went.
    pub async fn run(self) -> &'static str {
        let options = self.lease.options.clone().unwrap_or_default();
        let log = Arc::new(Log::new(self.worker.bus.clone(), &self.lease.build_id, self.lease.attempt, options.quiet));
        // Cancelled for any reason: by the client, by a lost lease, by the end of this worker.
        let halt = self.cancel.child_token();
        let lost = CancellationToken::new();
        let _renewing = self.watch(lost.clone(), halt.clone());
        let folder = self.worker.machine.build_folder(&self.lease.build_id);
        let mut outcome = match self.begin(&options, log, halt, folder.clone()).await {
            Ok(builder) => self.build(builder).await,
            Err((log, error)) => Err((log, error)),
        };
        if lost.is_cancelled() {
            outcome = outcome.map_err(|(log, _)| (log, Failure::Lost));
        }
        let word = match outcome {
            Ok(()) => "built",
            Err((_, Failure::Lost)) => "lost",
            Err((log, error)) => {
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

    async fn begin(
        &self,
        options: &proto::BuildOptions,
        log: Arc<Log>,
        halt: CancellationToken,
        folder: PathBuf,
    ) -> Result<Builder, (Arc<Log>, Failure)> {
        let store = self.worker.store.clone();
        let begun = async {
            if options.squash {
                return Err(Failure::user("squash is only supported with experimental mode"));
            }
            if !options.remove && !options.force_remove && self.worker.machine.handover.node_id().is_none() {
                return Err(Failure::user("the build's machine has no node that would keep containers: use --rm"));
            }
            let owner = machine::owner(&self.lease.build_id);
            let blobs = proto::LeaseCreate { owner: owner.clone(), ttl_seconds: BLOBS_TTL_SECONDS };
            let blobs = self.worker.bus.call::<calls::LeaseCreate>(&Target::Store, &blobs).await?;
            let layers = Layers::new(
                self.worker.snapshots.clone(),
                store.clone(),
                blobs.id,
                owner,
                self.worker.machine.builds.clone(),
            );
            let context = match self.worker.contexts.find(&context::key(options)) {
                Some(kept) => kept,
                None => tokio::select! {
                    () = halt.cancelled() => return Err(Failure::Cancelled),
                    context = Context::fetch(&store, options, folder.join("context")) => Arc::new(context?),
                },
            };
            Ok((layers, context))
        };
        match begun.await {
            Err(error) => Err((log, error)),
            Ok((layers, context)) => {
                let Worker { bus, machine, claims, .. } = self.worker.clone();
                let (gone, stop) = (self.cancel.clone(), self.stop.clone());
                let parts = Parts { bus, log, layers, context, machine, claims, cancel: halt, gone, stop };
                Ok(Builder::new(&self.lease, options.clone(), parts))
            }
        }
    }

    async fn build(&self, builder: Builder) -> Result<(), (Arc<Log>, Failure)> {
        let keeping = self.keep_blobs(&builder.layers.lease);
        let built = async {
            let plan = Plan::new(&builder.context.dockerfile, &builder.options)?;
            let image_id = builder.run(plan).await?;
            tokio::select! {
                () = builder.cancel.cancelled() => return Err(Failure::Cancelled),
                recorded = builder.recorder.finish() => recorded?,
            }
            let finish = proto::BuildFinish {
                build_id: builder.build_id.clone(),
                attempt: builder.attempt,
                image_id: image_id.clone(),
                ..proto::BuildFinish::default()
            };
            let tagged = self.worker.bus.call::<calls::BuildFinish>(&Target::Gateway, &finish).await?.tagged;
            Ok((image_id, tagged))
        };
        let built = built.await;
        // Others go on from a step of this build.
        let followed = built.is_err() && builder.claims.is_followed(&builder.build_id);
        if built.is_err()
            && (followed || !builder.cancel.is_cancelled())
            && let Err(error) = builder.recorder.finish().await
        {
            // The steps before the one that failed are worth keeping; where that fails too, the first error counts.
            tracing::debug!(%error, build_id = %builder.build_id, "steps of a failed build are not kept");
        }
        builder.layers.release();
        drop(keeping);
        let lease = proto::Lease { id: builder.layers.lease.clone() };
        // Those others pin its layers for themselves, in a moment: they stay until this lease runs out.
        if !followed && let Err(error) = self.worker.bus.call::<calls::LeaseEnd>(&Target::Store, &lease).await {
            tracing::debug!(%error, "the blobs' lease runs out by itself");
        }
        // The client hears of the end when nothing is held for the build any more: what it removes next can go.
        let built = match built {
            Ok((image_id, tagged)) => self.success(&builder, &image_id, &tagged).await,
            Err(error) => Err(error),
        };
        let (contexts, context) = (self.worker.contexts.clone(), builder.context.clone());
        if let Err(error) = tokio::task::spawn_blocking(move || contexts.keep(&context)).await {
            tracing::warn!(%error, "a context could not be kept");
        }
        built.map_err(|error| (builder.log, error))
    }

    async fn success(&self, builder: &Builder, image_id: &str, tagged: &[String]) -> Result<(), Failure> {
        if builder.options.quiet {
            builder.log.answer(&format!("{image_id}\n")).await?;
        } else {
            builder.log.stream(&format!("Successfully built {}\n", short_id(image_id))).await?;
            for tag in tagged {
                builder.log.stream(&format!("Successfully tagged {tag}\n")).await?;
            }
        }
        Ok(builder.log.end().await?)
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
        if let Err(error) = self.worker.bus.call::<calls::BuildFinish>(&Target::Gateway, &finish).await
            // Of a cancelled build the gateway wants no end.
            && !self.cancel.is_cancelled()
        {
            tracing::warn!(%error, build_id = %finish.build_id, "a failed build could not be reported");
        }
        if let Err(error) = log.error(&finish.error, finish.error_code).await {
            tracing::warn!(%error, build_id = %finish.build_id, "a build's log has no end");
        }
    }

    /// Renews the lease. Without an answer it counts as lost at two thirds of its time, before another may have it.
    fn watch(&self, lost: CancellationToken, halt: CancellationToken) -> DropGuard {
        let done = CancellationToken::new();
        let (bus, stop, ended) = (self.worker.bus.clone(), self.stop.clone(), done.clone());
        let cancel = self.cancel.clone();
        let renew = proto::BuildRenew {
            build_id: self.lease.build_id.clone(),
            attempt: self.lease.attempt,
            worker_id: self.worker.id.clone(),
        };
        let ttl = Duration::from_secs(u64::from(self.lease.ttl_seconds.max(3)));
        tokio::spawn(async move {
            let mut renewed = Instant::now();
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
                    Ok(Ok(_)) => renewed = Instant::now(),
                    Ok(Err(error))
                        if matches!(error.kind(), model::ErrorKind::NotFound | model::ErrorKind::Conflict) =>
                    {
                        break;
                    }
                    Ok(Err(_)) | Err(_) if renewed.elapsed() > ttl * 2 / 3 => break,
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            lost.cancel();
            halt.cancel();
        });
        done.drop_guard()
    }

    fn keep_blobs(&self, lease: &str) -> DropGuard {
        let done = CancellationToken::new();
        let (bus, ended) = (self.worker.bus.clone(), done.clone());
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
}
