//! Steps of builds that other workers have: run here, told there.

use std::sync::Arc;

use bus::{ProgressSender, Target, calls};
use model::ErrorKind;
use tokio_util::sync::CancellationToken;

use super::Executor;
use super::execute::{Executed, Failed};
use crate::client::BuildClient;
use crate::ends::Ends;
use crate::failure::Failure;
use crate::halt;
use crate::layers::{Layers, now_ns};
use crate::lifeline::{self, Renewals};
use crate::machine;
use crate::output::Output;
use crate::session::{BLOBS_TTL_SECONDS, keep_blobs};
use crate::slots::Slot;
use crate::worker::Worker;

/// A chunk of output carries at most this much.
const CHUNK_BYTES: usize = 64 * 1024;

/// Runs a step for the worker that has its build and its claim. It ends when that one wants it no more, or has lost the
/// claim; its layer is stored when it has ended.
///
/// # Errors
/// `Exhausted` without a free slot, `InvalidArgument` for a step without a claim.
pub async fn run_step(
    worker: Worker,
    request: proto::StepRun,
    progress: ProgressSender,
    stop: CancellationToken,
) -> Result<proto::StepRunReply, bus::Error> {
    let full = || bus::Error::new(ErrorKind::Exhausted, "no slot of this worker is free");
    let slot = worker.slots.try_take().ok_or_else(full)?;
    if request.claim_id.is_empty() {
        return Err(bus::Error::invalid("a step that nobody has claimed runs where its build is"));
    }
    let ends = Ends { cancel: stop.child_token(), gone: CancellationToken::new(), stop };
    // The call's future is dropped where it stands; what it has begun is to be cleared away.
    let _wanted = ends.cancel.clone().drop_guard();
    let ran = tokio::spawn(Guest { worker, request, ends, _slot: slot }.run(progress));
    ran.await.map_err(|error| bus::Error::internal(error.to_string()))?
}

struct Guest {
    worker: Worker,
    request: proto::StepRun,
    ends: Ends,
    _slot: Slot,
}

impl Guest {
    async fn run(self, progress: ProgressSender) -> Result<proto::StepRunReply, bus::Error> {
        let folder = format!("{}.{}", self.request.build_id, hex::encode(rand::random::<[u8; 4]>()));
        let ran = self.execute(&folder, progress).await;
        let path = self.worker.machine.build_folder(&folder);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path)).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder, "a step's folder stays");
        }
        match ran {
            Ok((record, None)) => Ok(proto::StepRunReply { record, ..Default::default() }),
            Ok((record, Some(Failure::Process { command, code }))) => Ok(proto::StepRunReply { record, command, code }),
            Ok((_, Some(error))) => Err(refused(error)),
            Err(error) => Err(refused(error)),
        }
    }

    /// What the step made, or what its failed command left, with why it failed.
    async fn execute(
        &self,
        folder: &str,
        progress: ProgressSender,
    ) -> Result<(Option<proto::StepRecord>, Option<Failure>), Failure> {
        let Worker { bus, store, snapshots, machine, .. } = self.worker.clone();
        let definition = self.request.definition.clone().unwrap_or_default();
        let owner = machine::owner(folder);
        let blobs = proto::LeaseCreate { owner: owner.clone(), ttl_seconds: BLOBS_TTL_SECONDS };
        let blobs = bus.call::<calls::LeaseCreate>(&Target::Store, &blobs).await?;
        // It runs out by itself: who asked pins the layer for its build in a moment.
        let _keeping = keep_blobs(bus.clone(), &blobs.id);
        let layers = Arc::new(Layers::new(bus.clone(), snapshots, store, blobs.id, owner, machine.builds.clone()));
        let line = lifeline::on_claim(bus.clone(), self.request.key.clone(), self.request.claim_id.clone());
        let asked = (self.request.build_id.as_str(), self.request.attempt);
        let gateway = self.request.session_gateway.clone();
        let client = BuildClient::new(bus, asked, gateway, self.ends.cancel.clone());
        let executor = Executor {
            worker: self.worker.clone(),
            layers: layers.clone(),
            build_id: self.request.build_id.clone(),
            folder: folder.to_owned(),
            attempt: self.request.attempt,
            client,
            ends: self.ends.clone(),
            lease: Renewals::new(bus::CLAIM_TTL),
            keep_failed: self.request.keep_failed,
            context: Arc::default(),
        };
        let started = now_ns();
        let mut output = Told(progress);
        let work = async {
            let (made, failed) = match executor.execute(&definition, line.0.clone(), &mut output).await {
                Ok(executed) => (Some(executed), None),
                Err(Failed { error, left }) => (left, Some(error)),
            };
            let stored = match made {
                Some(made) => halt::wanted(stored(made)).await.map(Some),
                None => Ok(None),
            };
            (stored, failed)
        };
        let (stored, failed) = halt::until(self.ends.unwanted(None), work).await;
        layers.release();
        let layer = match (stored, &failed) {
            (Ok(layer), _) => layer,
            // Its failure is what counts.
            (Err(_), Some(_)) => None,
            (Err(error), None) => return Err(error),
        };
        let record = layer.map(|layer| proto::StepRecord {
            key: self.request.key.clone(),
            layers: vec![layer],
            created_ns: now_ns(),
            took_ns: now_ns() - started,
            worker_id: self.worker.id.clone(),
            description: definition.description,
            value_json: String::new(),
        });
        Ok((record, failed))
    }
}

/// The layer, once it is in the layer store.
async fn stored(Executed { layer, upload }: Executed) -> Result<proto::Layer, Failure> {
    if let Some(upload) = upload {
        upload.await.map_err(Failure::caused)??;
    }
    Ok(layer)
}

fn refused(error: Failure) -> bus::Error {
    match error {
        Failure::User(why) => bus::Error::invalid(why),
        // It is to be claimed anew.
        Failure::CutOff | Failure::Cancelled | Failure::Lost => {
            bus::Error::new(ErrorKind::Cancelled, "the step was cut short")
        }
        error => bus::Error::internal(crate::failure::chain(&error)),
    }
}

/// What the command prints goes to the worker that asked.
struct Told(ProgressSender);

impl Output for Told {
    async fn write(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Failure> {
        for text in bytes.chunks(CHUNK_BYTES) {
            let (stream, text) = (u32::from(stream), text.to_vec());
            let line = proto::BuildOutputLine { vertex: String::new(), timestamp_ns: now_ns(), stream, text };
            self.0.send(&proto::Progress { line: Some(line), ..Default::default() }).await;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
