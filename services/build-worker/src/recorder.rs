use bus::{Bus, Target, calls};
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;
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
    pub async fn add(&self, upload: Option<Upload>, result: proto::StepResult) -> Result<(), Failure> {
        self.put(Step::Result { upload, result: Box::new(result) }).await
    }

    /// Puts a container in line that stays behind.
    pub async fn keep(&self, container: proto::StepContainer, offer: Option<Offer>) -> Result<(), Failure> {
        self.put(Step::Container { container: Box::new(container), offer }).await
    }

    async fn put(&self, step: Step) -> Result<(), Failure> {
        let sender = self.steps.lock().await.clone();
        let taken = match sender {
            Some(sender) => sender.send(step).await.is_ok(),
            None => false,
        };
        if taken {
            return Ok(());
        }
        self.finish().await.and(Err(Failure::internal("a step after the end of its build")))
    }

    /// Waits until everything is stored and recorded.
    pub async fn finish(&self) -> Result<(), Failure> {
        self.steps.lock().await.take();
        match self.task.lock().await.take() {
            Some(task) => task.await.map_err(Failure::caused)?,
            None => Ok(()),
        }
    }
}

async fn record(bus: Bus, mut steps: mpsc::Receiver<Step>) -> Result<(), Failure> {
    while let Some(step) = steps.recv().await {
        match step {
            Step::Result { upload, result } => {
                if let Some(upload) = upload {
                    upload.await.map_err(Failure::caused)??;
                }
                bus.call::<calls::StepResult>(&Target::Gateway, &result).await?;
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
    Ok(())
}
