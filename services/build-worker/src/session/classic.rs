//! A build by the classic builder.

use std::sync::Arc;

use bus::{Target, calls};
use model::short_id;
use tokio_util::sync::CancellationToken;

use super::{Session, keep_blobs};
use crate::builder::{Builder, Parts};
use crate::context::{self, Context};
use crate::failure::Failure;
use crate::halt::{Halt, wanted};
use crate::log::Log;
use crate::plan::Plan;
use crate::remote::access::Access;
use crate::worker::Worker;

impl Session {
    pub(super) async fn build_classic(
        &self,
        options: proto::BuildOptions,
        log: Arc<Log>,
        halt: CancellationToken,
    ) -> Result<(), Failure> {
        if !options.remove && !options.force_remove && self.worker.machine.handover.node_id().is_none() {
            return Err(Failure::user("the build's machine has no node that would keep containers: use --rm"));
        }
        let layers = self.layers().await?;
        let keeping = keep_blobs(self.worker.bus.clone(), &layers.lease);
        let folder = self.worker.machine.build_folder(&self.lease.build_id).join("context");
        let access = Access::default();
        let context = match self.worker.contexts.find(&context::key(&options)) {
            Some(kept) => kept,
            None => {
                let fetch = Context::fetch(&layers.store, &options, (folder, &access));
                Arc::new(Halt::new(halt.clone()).scope(wanted(fetch)).await?)
            }
        };
        let Worker { bus, machine, claims, .. } = self.worker.clone();
        let (gone, stop) = (self.cancel.clone(), self.stop.clone());
        let lease = self.renewals.clone();
        let parts = Parts { bus, log, layers, context, machine, claims, lease, cancel: halt, gone, stop };
        let builder = Builder::new(&self.lease, options, parts);
        let built = Halt::new(builder.cancel.clone()).scope(self.finished(&builder)).await;
        // Others go on from a step of this build.
        let followed = built.is_err() && builder.claims.is_followed(&builder.build_id);
        if built.is_err()
            && let Err(error) = self.unless_left(&builder.cancel, followed, builder.recorder.finish()).await
        {
            // The steps before the one that failed are worth keeping; where that fails too, the first error counts.
            tracing::debug!(%error, build_id = %builder.build_id, "steps of a failed build are not kept");
        }
        self.release(&builder.layers, keeping, followed).await;
        // The client hears of the end when nothing is held for the build any more: what it removes next can go.
        let built = match built {
            Ok((image_id, tagged)) => self.success(&builder, &image_id, &tagged).await,
            Err(error) => Err(error),
        };
        self.keep_context(builder.context.clone()).await;
        built
    }

    /// The image's id, and its names.
    async fn finished(&self, builder: &Builder) -> Result<(String, Vec<String>), Failure> {
        let plan = Plan::new(&builder.context.dockerfile, &builder.options)?;
        let mut stage = builder.run(plan).await?;
        wanted(builder.recorder.finish()).await?;
        if builder.options.squash {
            builder.squash(&mut stage).await?;
        }
        let image_id = stage.image_id;
        let finish = proto::BuildFinish {
            build_id: builder.build_id.clone(),
            attempt: builder.attempt,
            image_id: image_id.clone(),
            ..proto::BuildFinish::default()
        };
        let tagged = self.worker.bus.call::<calls::BuildFinish>(&Target::Gateway, &finish).await?.tagged;
        Ok((image_id, tagged))
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
        Ok(builder.log.end(Default::default(), Vec::new()).await?)
    }
}
