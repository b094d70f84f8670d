//! `squash=1`: the last stage's image with one layer on what its FROM named. It has no parent.

use bus::{Target, calls};
use model::Digest;

use super::Builder;
use super::stage::Stage;
use crate::failure::Failure;
use crate::squash;

impl Builder {
    /// Everything that the stage is made of is stored and recorded already; so is the new image then.
    pub async fn squash(&self, stage: &mut Stage) -> Result<(), Failure> {
        let base = stage.base.as_ref();
        let folder = self.machine.step_folder(&self.build_id);
        let layers = squash::layers(&self.layers, &stage.layers, base, folder).await?;
        let created = jiff::Timestamp::now().to_string();
        let config = squash::config(&stage.image_id, &stage.file.to_bytes(), &layers, (base, created))?;
        let id = Digest::of(&config).to_string();
        let image = proto::Image { id: id.clone(), config, layers: layers.clone(), ..proto::Image::default() };
        let result = proto::StepResult {
            build_id: self.build_id.clone(),
            attempt: self.attempt,
            // No step leads to it.
            key: String::new(),
            image: Some(image),
        };
        self.bus.call::<calls::StepResult>(&Target::Gateway, &result).await?;
        self.log.aux(&id).await?;
        (stage.image_id, stage.layers) = (id, layers);
        Ok(())
    }
}
