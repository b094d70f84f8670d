//! Runs one step, whole: what it needs stands in its definition. The same for a step of this worker's build and for one
//! that another worker hands over.

mod chmod;
mod copier;
mod copy;
mod folder;
mod mounts;
mod owner;
mod run;

use std::sync::Arc;

use proto::step_definition::Operation;
use tokio::sync::OnceCell;

use crate::client::BuildClient;
use crate::context::Context;
use crate::ends::Ends;
use crate::failure::Failure;
use crate::layers::{Layers, Unchanged, blocking};
use crate::lifeline::{Lifeline, Renewals};
use crate::output::Output;
use crate::recorder::Upload;
use crate::space;
use crate::tree::Tree;
use crate::worker::Worker;

pub use chmod::Chmod;
use copy::Ground;

/// What a failed command has changed is kept up to so much where nobody has asked for it: its client waits for it.
const LEFT_BYTES: u64 = 64 << 20;

/// Runs steps of one build on this worker.
#[derive(Clone)]
pub struct Executor {
    pub worker: Worker,
    pub layers: Arc<Layers>,
    pub build_id: String,
    /// Name of the folder that its steps have on this worker.
    pub folder: String,
    pub attempt: u32,
    pub client: BuildClient,
    pub ends: Ends,
    /// Renewed as long as this worker has the build.
    pub lease: Renewals,
    /// What a failed command leaves is kept, however much it is.
    pub keep_failed: bool,
    /// The build's context, once a step has needed it here.
    pub context: Arc<OnceCell<Arc<Context>>>,
}

/// What a step made: a layer, also where it changed nothing, and its way into the layer store.
pub struct Executed {
    pub layer: proto::Layer,
    pub upload: Option<Upload>,
}

/// Why a step made nothing.
pub struct Failed {
    pub error: Failure,
    /// What its command had changed until it failed, where that is kept.
    pub left: Option<Executed>,
}

impl From<Failure> for Failed {
    fn from(error: Failure) -> Self {
        Self { error, left: None }
    }
}

impl Executor {
    /// Runs a step to its end, or until the work of its scope is to end.
    ///
    /// # Errors
    /// `Process` for a command that fails, with what it left; `User` for what its author must mend, `Cancelled`, and `CutOff` where the
    /// lifeline did not hold.
    pub async fn execute(
        &self,
        step: &proto::StepDefinition,
        lifeline: Lifeline,
        output: &mut impl Output,
    ) -> Result<Executed, Failed> {
        let tree = self.mount(&step.parent).await?;
        match self.change(&tree, step, lifeline, output).await {
            Ok(None) => Ok(self.layer_of(tree).await?),
            Ok(Some(error)) => Err(Failed { error, left: self.leave(tree).await }),
            Err(error) => {
                tree.discard().await?;
                Err(error.into())
            }
        }
    }

    /// Does to a tree what the step is to do; gives what its command has failed with by itself.
    async fn change(
        &self,
        tree: &Tree,
        step: &proto::StepDefinition,
        lifeline: Lifeline,
        output: &mut impl Output,
    ) -> Result<Option<Failure>, Failure> {
        match &step.operation {
            Some(Operation::Run(run)) => return self.run(tree, run, lifeline, output).await,
            Some(Operation::Copy(copy)) => self.copy(tree, copy, ground(step)).await?,
            Some(Operation::Folder(folder)) => self.folder(tree, folder, epoch(step)).await?,
            None => return Err(Failure::internal("a step without an operation")),
        }
        Ok(None)
    }

    async fn layer_of(&self, tree: Tree) -> Result<Executed, Failure> {
        let made = tree.into_layer(&self.layers, Unchanged::EmptyLayer).await?;
        let made = made.ok_or_else(|| Failure::internal("a step without a layer"))?;
        Ok(Executed { layer: made.layer, upload: Some(made.upload) })
    }

    /// What a failed command has changed, for a shell in it: of a build that has not asked for it only what is soon stored.
    async fn leave(&self, tree: Tree) -> Option<Executed> {
        let (upper, keep) = (tree.upper(), self.keep_failed);
        let is_kept = blocking(move || Ok(keep || space::is_within(&upper, LEFT_BYTES))).await;
        if !is_kept.unwrap_or_default() {
            return None;
        }
        self.layer_of(tree)
            .await
            .inspect_err(
                |error| tracing::info!(%error, build_id = self.build_id, "what a failed step left is not kept"),
            )
            .ok()
    }

    /// Layers with a writable folder on top.
    async fn mount(&self, layers: &[proto::Layer]) -> Result<Tree, Failure> {
        Tree::mount(&self.layers, layers, self.worker.machine.step_folder(&self.folder)).await
    }
}

fn ground(step: &proto::StepDefinition) -> Ground {
    Ground { is_empty: step.parent.is_empty(), epoch: epoch(step) }
}

/// The time of whatever is made, in seconds.
fn epoch(step: &proto::StepDefinition) -> Option<i64> {
    step.has_epoch.then_some(step.source_date_epoch)
}
