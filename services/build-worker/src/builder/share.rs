//! Steps that several builds want at once: one runs it, the others follow what it prints and take its result.

use std::sync::Arc;
use std::time::Duration;

use model::ErrorKind;
use tokio::sync::mpsc;

use super::stage::Stage;
use super::steps::USING_CACHE;
use super::told::Told;
use super::{Builder, Progress};
use crate::claims::{Claim, Taken};
use crate::failure::Failure;
use crate::flight::{Ended, Flight};

/// A holder that has fallen silent is looked at so often, until its claim runs out.
const PAUSE: Duration = Duration::from_millis(500);

/// What is to be done for a step.
pub enum Begun {
    /// Nothing: the stage has gone on from a result that was there, or that another build has made meanwhile.
    Done,
    /// It is to be run here, for all who want it where there is a claim.
    Mine(Option<Claim>),
}

impl Builder {
    /// Goes on from an earlier result, or from that of another build that runs the step right now; else the step is
    /// this build's.
    pub async fn begin_step(
        &self,
        progress: &Progress,
        stage: &mut Stage,
        command: &[String],
    ) -> Result<Begun, Failure> {
        let mut told = Told::of(stage, command)?;
        let begun = self.find_or_claim(progress, stage, command).await;
        told.cached = matches!(begun, Ok(Begun::Done));
        stage.told = Some(told);
        begun
    }

    async fn find_or_claim(
        &self,
        progress: &Progress,
        stage: &mut Stage,
        command: &[String],
    ) -> Result<Begun, Failure> {
        if self.look_up(stage, command).await? {
            self.log.stream(USING_CACHE).await?;
            return Ok(Begun::Done);
        }
        if !self.shares_steps() {
            return Ok(Begun::Mine(None));
        }
        let key = stage.key(command)?;
        let mut dead = None;
        loop {
            let flight = Flight::new(&self.build_id, progress.number);
            match self.claims.take(&key, flight, dead.take()).await {
                Err(error) => {
                    tracing::warn!(%error, build_id = %self.build_id, "a step runs without a claim");
                    return Ok(Begun::Mine(None));
                }
                Ok(Taken::New(claim)) => return Ok(self.run_claimed(claim).await),
                Ok(Taken::Again(claim)) => {
                    // It may have ended after the look into the cache.
                    if !self.find(stage, command).await? {
                        return Ok(self.run_claimed(claim).await);
                    }
                    self.log.stream(USING_CACHE).await?;
                    return Ok(Begun::Done);
                }
                Ok(Taken::Held { claim, revision }) => match self.follow(progress, &claim).await {
                    Ok(Ended::Made(image)) => {
                        if self.adopt(stage, &key, *image).await? {
                            return Ok(Begun::Done);
                        }
                    }
                    Ok(Ended::Command { command, code }) => return Err(Failure::Command { command, code }),
                    // Nothing of the graph builder has a key like this one.
                    Ok(Ended::Dropped | Ended::Recorded(_)) => {}
                    Err(Failure::Bus(error)) if error.kind() == ErrorKind::NotFound => dead = Some(revision),
                    Err(Failure::Bus(error)) if error.is_lost() => tokio::time::sleep(PAUSE).await,
                    Err(error) => return Err(error),
                },
            }
            // Whoever had it may have recorded it meanwhile.
            if self.find(stage, command).await? {
                self.log.stream(USING_CACHE).await?;
                return Ok(Begun::Done);
            }
        }
    }

    /// Not where results are not to be shared: without the cache, with one of its own, or with containers that stay.
    fn shares_steps(&self) -> bool {
        !self.options.no_cache && self.options.cache_from.is_empty() && self.removes_containers()
    }

    async fn run_claimed(&self, claim: Claim) -> Begun {
        self.log.lend(claim.flight.clone()).await;
        Begun::Mine(Some(claim))
    }

    /// Passes on what a step prints that another build runs, until its end.
    async fn follow(&self, progress: &Progress, claim: &proto::StepClaim) -> Result<Ended, Failure> {
        let ended = match self.claims.flight(&claim.id).filter(|flight| flight.build_id == self.build_id) {
            Some(flight) => self.follow_stage(progress, &flight).await,
            None => self.follow_build(claim).await,
        };
        // Cancelled in between: what did not end is not this build's any more.
        if self.cancel.is_cancelled() { Err(Failure::Cancelled) } else { ended }
    }

    /// Another stage of this build has the same step. In the output the earlier one runs it, the later one finds it.
    async fn follow_stage(&self, progress: &Progress, flight: &Arc<Flight>) -> Result<Ended, Failure> {
        let earlier = progress.number < flight.stage;
        if earlier {
            flight.move_output();
        }
        let mut follower = flight.follow();
        let ended = loop {
            let (lines, ended) = tokio::select! {
                () = self.cancel.cancelled() => return Err(Failure::Cancelled),
                next = follower.next() => next,
            };
            for line in lines.iter().filter(|_| earlier) {
                self.log.stream(&line.stream).await?;
            }
            if let Some(ended) = ended {
                break ended;
            }
        };
        if !earlier && matches!(ended, Ended::Made(_)) {
            self.log.stream(USING_CACHE).await?;
        }
        Ok(ended)
    }

    async fn follow_build(&self, claim: &proto::StepClaim) -> Result<Ended, Failure> {
        let (progress, mut lines) = mpsc::channel::<proto::Progress>(64);
        let call = self.claims.follow(claim, progress);
        let forward = async {
            while let Some(line) = lines.recv().await {
                self.log.stream(&line.stream).await?;
            }
            Ok::<_, bus::Error>(())
        };
        let (ended, forwarded) = tokio::select! {
            () = self.cancel.cancelled() => return Err(Failure::Cancelled),
            followed = async { tokio::join!(call, forward) } => followed,
        };
        forwarded?;
        Ok(ended?)
    }

    /// Goes on from what another build's step made; not where its layers have gone already.
    async fn adopt(&self, stage: &mut Stage, key: &str, image: proto::Image) -> Result<bool, Failure> {
        if !self.layers.pin(&image.layers).await? {
            return Ok(false);
        }
        let file = oci::ImageConfig::parse(&image.config).map_err(Failure::caused)?;
        let (id, layers) = (image.id.clone(), image.layers.clone());
        // Recorded for this build too: it holds the image then, also where the other build was cancelled.
        let result = proto::StepResult {
            build_id: self.build_id.clone(),
            attempt: self.attempt,
            key: key.to_owned(),
            image: Some(image),
        };
        self.recorder.add(None, result, None).await?;
        stage.advance(id, file, layers);
        // Others may have gone on from it.
        stage.cache_missed = false;
        Ok(true)
    }
}
