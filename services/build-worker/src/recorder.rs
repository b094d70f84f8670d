use bus::{Bus, Target, calls};
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::claims::Claim;
use crate::failure::Failure;
use crate::flight::Ended;
use crate::halt;
use crate::handover::Offer;

/// Steps that may wait for their layer's upload; a build that is further ahead waits.
const QUEUE: usize = 32;

/// The upload of a layer that a step made.
pub type Upload = AbortOnDropHandle<Result<(), Failure>>;

/// Tells the gateway of each step's image, in order, and only once its layer is stored: an image that the gateway knows
/// can always be run, and a later build finds the steps of one that failed. The build itself goes on meanwhile.
pub struct Recorder {
    steps: Mutex<Option<mpsc::Sender<Step>>>,
    task: Mutex<Option<AbortOnDropHandle<Result<(), Failure>>>>,
}

enum Step {
    Result {
        upload: Option<Upload>,
        result: Box<proto::StepResult>,
        claim: Option<Claim>,
    },
    /// A container that stays; its image is that of a step before.
    Container {
        container: Box<proto::StepContainer>,
        offer: Option<Offer>,
    },
}

impl Recorder {
    pub fn new(bus: Bus) -> Self {
        let (sender, steps) = mpsc::channel(QUEUE);
        let task = AbortOnDropHandle::new(tokio::spawn(record(bus, steps)));
        Self { steps: Mutex::new(Some(sender)), task: Mutex::new(Some(task)) }
    }

    /// Puts a step in line. Fails with what an earlier one failed with.
    /// Who follows the step is told then.
    pub async fn add(
        &self,
        upload: Option<Upload>,
        result: proto::StepResult,
        claim: Option<Claim>,
    ) -> Result<(), Failure> {
        self.put(Step::Result { upload, result: Box::new(result), claim }).await
    }

    /// Puts a container in line that stays behind.
    pub async fn keep(&self, container: proto::StepContainer, offer: Option<Offer>) -> Result<(), Failure> {
        self.put(Step::Container { container: Box::new(container), offer }).await
    }

    async fn put(&self, step: Step) -> Result<(), Failure> {
        let sender = self.steps.lock().await.clone();
        let taken = match sender {
            Some(sender) => halt::wait(sender.send(step)).await?.is_ok(),
            None => false,
        };
        if taken {
            return Ok(());
        }
        self.finish().await.and(Err(Failure::internal("a step after the end of its build")))
    }

    /// Waits until everything is stored and recorded. May be left and called again.
    pub async fn finish(&self) -> Result<(), Failure> {
        self.steps.lock().await.take();
        let mut task = self.task.lock().await;
        let Some(running) = task.as_mut() else { return Ok(()) };
        let recorded = running.await;
        task.take();
        recorded.map_err(Failure::caused)?
    }
}

async fn record(bus: Bus, mut steps: mpsc::Receiver<Step>) -> Result<(), Failure> {
    let mut lost = false;
    while let Some(step) = steps.recv().await {
        match step {
            Step::Result { upload, mut result, claim } => {
                if let Some(upload) = upload {
                    upload.await.map_err(Failure::caused)??;
                }
                if claim.as_ref().is_some_and(|claim| claim.flight.claim.is_lost()) {
                    // Another has run the step as well: its result is the one that others find.
                    result.key.clear();
                }
                if !lost {
                    match bus.call::<calls::StepResult>(&Target::Gateway, &result).await.map_err(Failure::from) {
                        // The build is no longer wanted, but those who follow its last step want that.
                        Err(Failure::Lost) => lost = true,
                        recorded => drop(recorded?),
                    }
                }
                if let (Some(claim), Some(image)) = (claim, result.image) {
                    claim.end(Ended::Made(Box::new(image)));
                }
            }
            Step::Container { container, offer } => {
                // The image is what counts; a container that could not be kept does not fail its build.
                if let Err(error) = bus.call::<calls::StepContainer>(&Target::Gateway, &container).await {
                    tracing::warn!(%error, container_id = %container.id, "a step's container could not be kept");
                }
                tokio::task::spawn_blocking(|| drop(offer)).await.map_err(Failure::caused)?;
            }
        }
    }
    if lost { Err(Failure::Lost) } else { Ok(()) }
}
