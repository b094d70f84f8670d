//! A build by the graph builder.

use std::sync::Arc;

use bus::{Target, calls};
use tokio_util::sync::CancellationToken;

use super::{Session, keep_blobs};
use crate::client::BuildClient;
use crate::ends::Ends;
use crate::failure::Failure;
use crate::graph::{Executor, Finished, Graph};
use crate::halt::Halt;
use crate::log::Log;
use crate::patience::patiently;

impl Session {
    pub(super) async fn build_graph(
        &self,
        options: proto::BuildOptions,
        log: Arc<Log>,
        halt: CancellationToken,
    ) -> Result<(), Failure> {
        let layers = Arc::new(self.layers().await?);
        let keeping = keep_blobs(self.worker.bus.clone(), &layers.lease);
        let claims = self.worker.claims.clone();
        let leased = (self.lease.build_id.as_str(), self.lease.attempt);
        let gateway = options.session_gateway.clone();
        let client = BuildClient::new(self.worker.bus.clone(), leased, gateway, halt.clone());
        let executor = Executor {
            worker: self.worker.clone(),
            layers: layers.clone(),
            build_id: self.lease.build_id.clone(),
            folder: self.lease.build_id.clone(),
            attempt: self.lease.attempt,
            client,
            ends: Ends { cancel: halt.child_token(), gone: self.cancel.clone(), stop: self.stop.clone() },
            lease: self.renewals.clone(),
            keep_failed: options.keep_failed,
            context: Arc::default(),
        };
        let context = executor.context.clone();
        let work = Halt::new(executor.ends.cancel.clone());
        let graph = Graph::new(options, executor, self.lease.likely_keys.clone(), log.clone());
        let built = match work.scope(graph.run()).await {
            Ok(finished) => {
                let finish = proto::BuildFinish {
                    build_id: self.lease.build_id.clone(),
                    attempt: self.lease.attempt,
                    image_id: finished.image_id.clone(),
                    built: true,
                    response: finished.response.clone(),
                    ..proto::BuildFinish::default()
                };
                let bus = &self.worker.bus;
                let told = patiently(|| bus.call::<calls::BuildFinish>(&Target::Gateway, &finish)).await;
                told.map(|_| finished).map_err(Failure::from)
            }
            Err(error) => {
                if let Some(fault) = graph.fault(&error) {
                    log.point_at(fault).await;
                }
                Err(error)
            }
        };
        // Others go on from a step of this build.
        let followed = built.is_err() && claims.is_followed(&self.lease.build_id);
        if built.is_err()
            && let Err(error) = self.unless_left(&halt, followed, graph.keep()).await
        {
            // The steps before the one that failed are worth keeping; where that fails too, the first error counts.
            tracing::debug!(%error, build_id = %self.lease.build_id, "steps of a failed build are not kept");
        }
        self.release(&layers, keeping, followed).await;
        // The client hears of the end when nothing is held for the build any more: what it removes next can go.
        let built = match built {
            Ok(Finished { image_id, response, results }) => {
                if !image_id.is_empty() {
                    log.aux(&image_id).await?;
                }
                log.end(response, results).await.map_err(Failure::from)
            }
            Err(error) => Err(error),
        };
        if let Some(context) = context.get() {
            self.keep_context(context.clone()).await;
        }
        built
    }
}
