//! What every step does: look into the cache, note its result with the gateway.

use bus::Target;
use model::{Digest, short_id};

use super::Builder;
use super::stage::Stage;
use super::stays::Ended;
use crate::failure::Failure;
use crate::image;
use crate::layers::Made;

/// How a container's id is made up.
pub fn container_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

impl Builder {
    /// Goes on from an earlier result if there is one whose layers are still stored. Says whether there was.
    pub async fn look_up(&self, stage: &mut Stage, command: &[String]) -> Result<bool, Failure> {
        if self.options.no_cache || stage.cache_missed {
            return Ok(false);
        }
        let request = proto::StepLookup {
            key: stage.key(command)?,
            parent_id: stage.image_id.clone(),
            lease: self.layers.lease.clone(),
            build_id: self.build_id.clone(),
        };
        let found = self.bus.call::<bus::calls::StepLookup>(&Target::Gateway, &request).await?;
        let here = !found.id.is_empty() && self.may_use(&found.id).await && self.layers.pin(&found.layers).await?;
        if here {
            let file = oci::ImageConfig::parse(&found.config).map_err(Failure::caused)?;
            stage.advance(found.id, file, found.layers);
        } else if !self.restore(stage, command).await? {
            stage.cache_missed = true;
            return Ok(false);
        }
        self.log.stream(" ---> Using cache\n").await?;
        Ok(true)
    }

    /// Makes the step's image and goes on from it; the gateway hears of it once its layer is stored. `command` is its line in the history and part of its key.
    pub async fn record(&self, stage: &mut Stage, command: &[String], made: Option<Made>) -> Result<(), Failure> {
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
        self.recorder.add(upload, result).await?;
        stage.advance(id, file, layers);
        Ok(())
    }

    pub async fn print_running(&self, container_id: &str) -> Result<(), Failure> {
        Ok(self.log.stream(&format!(" ---> Running in {}\n", short_id(container_id))).await?)
    }

    pub async fn print_removed(&self, container_id: &str) -> Result<(), Failure> {
        if self.options.remove || self.options.force_remove {
            self.log.stream(&format!("Removing intermediate container {}\n", short_id(container_id))).await?;
        }
        Ok(())
    }

    /// A step that changes the configuration only; the container that Docker makes for it is but a line of output.
    pub async fn comment_step(&self, stage: &mut Stage, comment: String) -> Result<(), Failure> {
        let mut command = image::shell(&stage.config);
        command.extend(["#(nop) ".to_owned(), comment]);
        if self.look_up(stage, &command).await? {
            return Ok(());
        }
        let container = container_id();
        self.print_running(&container).await?;
        let parent = stage.clone();
        self.record(stage, &command, None).await?;
        self.retire(&parent, Ended::never_ran(&container, &command), None).await
    }
}
