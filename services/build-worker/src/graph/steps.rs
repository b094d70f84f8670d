//! A step's result: found in the cluster's cache, taken from another build that makes it right now, or made.

use std::sync::Arc;
use std::time::Duration;

use bus::{Target, calls};
use model::ErrorKind;
use tokio::sync::mpsc;

use super::Graph;
use super::execute::{Executed, Failed};
use super::place::{Place, layers_of, may_go};
use super::records::Made;
use super::trace::Vertex;
use crate::claims::{Claim, Taken};
use crate::failure::Failure;
use crate::flight::{Ended, Flight};
use crate::halt;
use crate::layers::now_ns;
use crate::lifeline;

/// A holder that has fallen silent is looked at so often, until its claim runs out.
const PAUSE: Duration = Duration::from_millis(500);

/// A step that is to be solved.
#[derive(Clone)]
pub struct Step {
    pub definition: proto::StepDefinition,
    pub key: String,
    /// Another key that leads to the same result, and was not found.
    pub also: Option<String>,
    /// Else it is made anew, and its result is the one that counts from then on.
    pub use_cache: bool,
}

impl Graph {
    /// An earlier result whose layers are there.
    pub(super) async fn found(&self, key: &str) -> Result<Option<proto::StepRecord>, Failure> {
        halt::wanted(self.find(key)).await
    }

    async fn find(&self, key: &str) -> Result<Option<proto::StepRecord>, Failure> {
        if let Some(record) = self.likely.find(key) {
            return Ok(Some(record));
        }
        match self.look_up(vec![key.to_owned()]).await?.into_iter().next() {
            Some(record) if self.executor.layers.pin(&record.layers).await? => Ok(Some(record)),
            _ => self.found_elsewhere(key).await,
        }
    }

    /// The step's result, from wherever it can be had.
    ///
    /// # Errors
    /// `Process` for a command that fails, here or where it was followed.
    pub(super) async fn solve(&self, vertex: &mut Vertex, step: Step) -> Result<proto::StepRecord, Failure> {
        loop {
            match self.try_solve(vertex, step.clone()).await {
                // The bus is there again, or another has the claim now.
                Err(Failure::CutOff) if !self.executor.ends.cancel.is_cancelled() => {
                    tracing::info!(key = step.key, "a step was cut off, and begins anew");
                }
                solved => return solved,
            }
        }
    }

    async fn try_solve(&self, vertex: &mut Vertex, step: Step) -> Result<proto::StepRecord, Failure> {
        vertex.told.key.clone_from(&step.key);
        if !step.use_cache {
            // What keeps it alive where another worker has it.
            let claim = match may_go(&step.definition) {
                true => {
                    self.executor.worker.claims.take_alone(&step.key, Flight::new(&self.executor.build_id, 0)).await
                }
                false => None,
            };
            return self.work(vertex, step, claim).await;
        }
        if let Some(record) = self.found(&step.key).await? {
            return self.cached(vertex, &step, record).await;
        }
        let mut dead = None;
        loop {
            let flight = Flight::new(&self.executor.build_id, 0);
            let followed = match self.executor.worker.claims.take(&step.key, flight, dead.take()).await {
                Err(error) => {
                    tracing::warn!(%error, build_id = %self.executor.build_id, "a step runs without a claim");
                    return self.work(vertex, step, None).await;
                }
                Ok(Taken::New(claim)) => return self.work(vertex, step, Some(claim)).await,
                Ok(Taken::Again(claim)) => {
                    // It may have ended after the look into the cache.
                    return match self.found(&step.key).await? {
                        Some(record) => self.cached(vertex, &step, record).await,
                        None => self.work(vertex, step, Some(claim)).await,
                    };
                }
                Ok(Taken::Held { claim, revision }) => (self.follow(vertex, &claim).await, revision),
            };
            match followed.0 {
                Ok(Ended::Recorded(record)) => {
                    if self.executor.layers.pin(&record.layers).await? {
                        return self.adopted(vertex, *record).await;
                    }
                }
                Ok(Ended::Command { command, code }) => {
                    let failure = Failure::Process { command, code };
                    vertex.complete(Some(&failure)).await;
                    return Err(failure);
                }
                Ok(Ended::Dropped | Ended::Made(_)) => {}
                Err(Failure::Bus(error)) if error.kind() == ErrorKind::NotFound => dead = Some(followed.1),
                Err(Failure::Bus(error)) if error.is_lost() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
            // Whoever had it may have recorded it meanwhile.
            if let Some(record) = self.found(&step.key).await? {
                return self.cached(vertex, &step, record).await;
            }
        }
    }

    async fn cached(
        &self,
        vertex: &mut Vertex,
        step: &Step,
        record: proto::StepRecord,
    ) -> Result<proto::StepRecord, Failure> {
        vertex.cached().await;
        // What another Boxyard made has no worker here, and is not recorded for others.
        if let Some(key) = step.also.clone().filter(|_| !record.worker_id.is_empty()) {
            let record = proto::StepRecord { key, ..record.clone() };
            self.records.add(Made { record, upload: None, also: None, claim: None }).await;
        }
        Ok(record)
    }

    /// What another build's step made: recorded for this build too, in case the other was cancelled.
    async fn adopted(&self, vertex: &mut Vertex, record: proto::StepRecord) -> Result<proto::StepRecord, Failure> {
        vertex.told.worker.clone_from(&record.worker_id);
        vertex.complete(None).await;
        self.records.add(Made { record: record.clone(), upload: None, also: None, claim: None }).await;
        Ok(record)
    }

    /// Passes on what a step prints that another build runs, or another stage of this one, until its end.
    async fn follow(&self, vertex: &mut Vertex, claim: &proto::StepClaim) -> Result<Ended, Failure> {
        vertex.told.worker.clone_from(&claim.worker_id);
        vertex.start().await;
        let (progress, mut lines) = mpsc::channel::<proto::Progress>(64);
        let call = self.executor.worker.claims.follow(claim, progress);
        let forward = async {
            while let Some(line) = lines.recv().await.and_then(|progress| progress.line) {
                vertex.line(line).await;
            }
        };
        let (ended, ()) = halt::wait(async { tokio::join!(call, forward) }).await?;
        Ok(ended?)
    }

    async fn work(&self, vertex: &mut Vertex, step: Step, claim: Option<Claim>) -> Result<proto::StepRecord, Failure> {
        let acquire = async { self.slots.acquire().await.map_err(|_| Failure::Cancelled) };
        let _slot = halt::wanted(acquire).await?;
        let started = now_ns();
        let flight = claim.as_ref().map(|claim| claim.flight.clone());
        let placed = halt::wait(self.place(&step.definition, claim.is_some())).await?;
        vertex.told.worker = match &placed.place {
            Place::Here => self.worker_id.clone(),
            Place::Worker(id) => id.clone(),
        };
        vertex.start().await;
        let unwanted = self.executor.ends.unwanted(flight.as_deref());
        let run = async {
            match (&placed.place, &claim) {
                (Place::Worker(id), Some(claim)) => self.run_there(vertex, &step, (id, claim)).await,
                _ => self.run_here(vertex, &step, flight.clone()).await,
            }
        };
        let ran = halt::until(unwanted, run).await;
        drop(placed);
        let Executed { layer, upload } = match ran {
            Ok(executed) => executed,
            Err(Failed { error: Failure::CutOff, .. }) => return Err(Failure::CutOff),
            Err(Failed { error, left }) => {
                // A command that fails by itself would do so for all who follow it.
                if let (Failure::Process { command, code }, Some(claim)) = (&error, claim) {
                    claim.end(Ended::Command { command: command.clone(), code: *code });
                }
                if let Some(left) = left {
                    self.keep_left(vertex, left, &step.definition).await;
                }
                vertex.complete(Some(&error)).await;
                return Err(error);
            }
        };
        self.places.note_made(&layer, &vertex.told.worker);
        let record = proto::StepRecord {
            key: step.key,
            layers: vec![layer],
            created_ns: now_ns(),
            took_ns: now_ns() - started,
            worker_id: vertex.told.worker.clone(),
            description: step.definition.description,
            value_json: String::new(),
        };
        vertex.complete(None).await;
        self.records.add(Made { record: record.clone(), upload, also: step.also, claim }).await;
        Ok(record)
    }

    /// What a failed command left is kept as results are: under the same cap, and as long as it is not pruned.
    async fn keep_left(&self, vertex: &mut Vertex, left: Executed, definition: &proto::StepDefinition) {
        let Executed { layer, upload } = left;
        if let Some(view) = &mut vertex.view {
            view.left = Some(layer.clone());
        }
        let record = proto::StepRecord {
            // No step has this key.
            key: model::Digest::of(format!("left {}", layer.diff_id).as_bytes()).to_string(),
            layers: vec![layer],
            created_ns: now_ns(),
            worker_id: vertex.told.worker.clone(),
            description: format!("{} (failed)", definition.description),
            ..proto::StepRecord::default()
        };
        self.records.add(Made { record, upload, also: None, claim: None }).await;
    }

    async fn run_here(&self, vertex: &Vertex, step: &Step, flight: Option<Arc<Flight>>) -> Result<Executed, Failed> {
        let line = flight.as_ref().map_or(&self.executor.lease, |flight| &flight.claim).lifeline();
        self.executor.execute(&step.definition, line, &mut vertex.lines(flight.clone())).await
    }

    /// Hands the step to another worker; its layer is stored when it has ended.
    async fn run_there(
        &self,
        vertex: &Vertex,
        step: &Step,
        (worker, claim): (&str, &Claim),
    ) -> Result<Executed, Failed> {
        let request = proto::StepRun {
            build_id: self.executor.build_id.clone(),
            attempt: self.executor.attempt,
            key: claim.key.clone(),
            definition: Some(step.definition.clone()),
            claim_id: claim.id.clone(),
            session_gateway: self.executor.client.gateway(),
            keep_failed: self.executor.keep_failed,
        };
        self.executor.layers.uploaded(layers_of(&step.definition)).await?;
        let flight = &claim.flight;
        let (progress, mut lines) = mpsc::channel::<proto::Progress>(64);
        let target = Target::Worker(worker.to_owned());
        let call = self.executor.worker.bus.call_while_wanted::<calls::StepRun>(&target, &request, Some(progress));
        let forward = async {
            while let Some(line) = lines.recv().await.and_then(|progress| progress.line) {
                flight.tell(&line);
                vertex.line(line).await;
            }
        };
        let (reply, ()) = halt::wait(async { tokio::join!(call, forward) }).await?;
        let proto::StepRunReply { record, command, code } = match reply {
            Ok(reply) => reply,
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                return Err(Failure::user(error.message()).into());
            }
            // It is full, gone or broken: another runs the step.
            Err(error) => {
                tracing::info!(%error, worker, "a step did not run on another worker");
                self.places.avoid(worker);
                if error.is_lost() {
                    // Its process may go on for a moment. The claim is held until then, so that it never runs twice.
                    let pause = tokio::time::sleep(lifeline::after_silence());
                    halt::wait(pause).await?;
                }
                return Err(Failure::CutOff.into());
            }
        };
        let layer = record.and_then(|record| record.layers.into_iter().next());
        let is_stored = match &layer {
            Some(layer) => self.executor.layers.pin(std::slice::from_ref(layer)).await?,
            None => false,
        };
        let made = layer.filter(|_| is_stored).map(|layer| Executed { layer, upload: None });
        if code != 0 {
            return Err(Failed { error: Failure::Process { command, code }, left: made });
        }
        made.ok_or_else(|| Failure::internal("the layer of a step on another worker is not stored").into())
    }
}
