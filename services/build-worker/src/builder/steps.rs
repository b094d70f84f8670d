//! What every step does: look into the cache, note its result with the gateway.

use bus::{Target, calls};
use model::{Digest, short_id};

use super::share::Begun;
use super::stage::Stage;
use super::stays::Ended as Container;
use super::{Builder, Progress};
use crate::claims::Claim;
use crate::ends::Ends;
use crate::failure::Failure;
use crate::handover::Changes;
use crate::image;
use crate::layers::Made;
use crate::tree::Tree;

pub const USING_CACHE: &str = " ---> Using cache\n";
/// How a container's id is made up.
pub fn container_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// What a step makes its image of.
pub struct Outcome {
    pub made: Option<Made>,
    pub claim: Option<Claim>,
}

impl Builder {
    pub fn removes_containers(&self) -> bool {
        self.options.remove || self.options.force_remove
    }

    /// Goes on from an earlier result if there is one whose layers are still stored. Says whether there was.
    pub(super) async fn look_up(&self, stage: &mut Stage, command: &[String]) -> Result<bool, Failure> {
        if self.options.no_cache || stage.cache_missed {
            return Ok(false);
        }
        if self.find(stage, command).await? || self.restore(stage, command).await? {
            return Ok(true);
        }
        stage.cache_missed = true;
        Ok(false)
    }

    /// Returns when a step is to end before its time: its build is, and nobody follows it whom that concerns not.
    pub(super) fn unwanted(&self, claim: Option<&Claim>) -> impl Future<Output = ()> + Send + use<> {
        let ends = Ends { cancel: self.cancel.clone(), gone: self.gone.clone(), stop: self.stop.clone() };
        let flight = claim.map(|claim| claim.flight.clone());
        async move { ends.unwanted(flight.as_deref()).await }
    }

    /// A stage's root with a new writable folder on top.
    pub(super) async fn mount(&self, stage: &Stage) -> Result<Tree, Failure> {
        Tree::mount(&self.layers, &stage.layers, self.machine.step_folder(&self.build_id)).await
    }

    pub(super) async fn find(&self, stage: &mut Stage, command: &[String]) -> Result<bool, Failure> {
        let request = proto::StepLookup {
            key: stage.key(command)?,
            parent_id: stage.image_id.clone(),
            lease: self.layers.lease.clone(),
            build_id: self.build_id.clone(),
            attempt: self.attempt,
        };
        let found = self.bus.call::<calls::StepLookup>(&Target::Gateway, &request).await?;
        let here = !found.id.is_empty() && self.may_use(&found.id).await && self.layers.pin(&found.layers).await?;
        if here {
            let file = oci::ImageConfig::parse(&found.config).map_err(Failure::caused)?;
            stage.advance(found.id, file, found.layers);
        }
        Ok(here)
    }

    /// Makes the step's image and goes on from it; the gateway hears of it once its layer is stored. `command` is its
    /// line in the history and part of its key.
    pub async fn record(
        &self,
        stage: &mut Stage,
        command: &[String],
        Outcome { made, claim }: Outcome,
    ) -> Result<(), Failure> {
        self.log.take_back(USING_CACHE).await;
        let (layer, upload) = made.map(|Made { layer, upload }| (layer, upload)).unzip();
        let created = jiff::Timestamp::now().to_string();
        let file = stage.child(command, layer.as_ref(), &created)?;
        let config = file.to_bytes();
        let mut layers = stage.layers.clone();
        layers.extend(layer);
        let image = proto::Image {
            id: Digest::of(&config).to_string(),
            config,
            layers,
            parent_id: stage.image_id.clone(),
            ..proto::Image::default()
        };
        let (id, layers) = (image.id.clone(), image.layers.clone());
        let result = proto::StepResult {
            build_id: self.build_id.clone(),
            attempt: self.attempt,
            key: stage.key(command)?,
            image: Some(image),
        };
        self.recorder.add(upload, result, claim).await?;
        stage.advance(id, file, layers);
        Ok(())
    }

    /// As [`Self::record`], for a step that had a container: says that it is gone, or keeps it.
    pub async fn record_container(
        &self,
        stage: &mut Stage,
        command: &[String],
        container: Container,
        result: Outcome,
    ) -> Result<(), Failure> {
        let changes = result.made.as_ref().map(Made::diff_id).transpose()?.map(Changes::Layer);
        self.print_removed(&container.id).await?;
        if self.removes_containers() {
            return self.record(stage, command, result).await;
        }
        let parent = stage.clone();
        self.record(stage, command, result).await?;
        self.keep(&parent, container, changes).await
    }

    pub async fn print_running(&self, container_id: &str) -> Result<(), Failure> {
        Ok(self.log.stream(&format!(" ---> Running in {}\n", short_id(container_id))).await?)
    }

    pub async fn print_removed(&self, container_id: &str) -> Result<(), Failure> {
        if self.removes_containers() {
            self.log.stream(&format!(" ---> Removed intermediate container {}\n", short_id(container_id))).await?;
        }
        Ok(())
    }

    /// A step that changes the configuration only; the container that Docker makes for it is but a line of output.
    pub async fn comment_step(&self, progress: &Progress, stage: &mut Stage, comment: String) -> Result<(), Failure> {
        let mut command = image::shell(&stage.config);
        command.extend(["#(nop) ".to_owned(), comment]);
        let Begun::Mine(claim) = self.begin_step(progress, stage, &command).await? else { return Ok(()) };
        let container = container_id();
        self.print_running(&container).await?;
        let container = Container::never_ran(&container, &command);
        self.record_container(stage, &command, container, Outcome { made: None, claim }).await
    }
}
