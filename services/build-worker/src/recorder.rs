use bus::{Bus, Target, calls};
use tokio::sync::{Mutex, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;

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

struct Step {
    upload: Option<Upload>,
    result: proto::StepResult,
}

impl Recorder {
    pub fn new(bus: Bus) -> Self {
        let (sender, steps) = mpsc::channel(QUEUE);
        let task = AbortOnDropHandle::new(tokio::spawn(record(bus, steps)));
        Self { steps: Mutex::new(Some(sender)), task: Mutex::new(Some(task)) }
    }

    /// Puts a step in line. Fails with what an earlier one failed with.
    pub async fn add(&self, upload: Option<Upload>, result: proto::StepResult) -> Result<(), Failure> {
        let sender = self.steps.lock().await.clone();
        let taken = match sender {
            Some(sender) => sender.send(Step { upload, result }).await.is_ok(),
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
    while let Some(Step { upload, result }) = steps.recv().await {
        if let Some(upload) = upload {
            upload.await.map_err(Failure::caused)??;
        }
        bus.call::<calls::StepResult>(&Target::Gateway, &result).await?;
    }
    Ok(())
}
