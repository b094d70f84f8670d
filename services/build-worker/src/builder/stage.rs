use crate::failure::Failure;
use crate::layers::{diff_id, diff_ids};
use model::{DiffId, Digest};
use oci::{ContainerConfig, History, ImageConfig};

/// A stage as far as it is built.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    pub name: Option<String>,
    /// Empty as long as there is no image: after `FROM scratch`.
    pub image_id: String,
    /// The image's configuration file: what the next one's begins with.
    pub file: ImageConfig,
    pub layers: Vec<proto::Layer>,
    /// The configuration of the next image.
    pub config: ContainerConfig,
    /// MAINTAINER of this stage.
    pub author: Option<String>,
    /// A CMD of this stage is not dropped by a later ENTRYPOINT.
    pub cmd_set: bool,
    /// After the first miss nothing more is looked up.
    pub cache_missed: bool,
}

impl Stage {
    /// Begins on an image.
    pub fn on(image: proto::Image) -> Result<Self, Failure> {
        let file = ImageConfig::parse(&image.config)
            .map_err(|error| Failure::internal(format!("configuration of image {}: {error}", image.id)))?;
        let mut stage = Self { layers: image.layers, config: file.config.clone(), file, ..Self::default() };
        stage.become_image(image.id);
        Ok(stage)
    }

    pub fn diff_ids(&self) -> Result<Vec<DiffId>, Failure> {
        diff_ids(&self.layers)
    }

    /// The image that a step makes; `created_by` is its line in the history.
    pub fn child(
        &self,
        created_by: &[String],
        layer: Option<&proto::Layer>,
        created: &str,
    ) -> Result<ImageConfig, Failure> {
        let author = self.author.clone().unwrap_or_default();
        // Only what describes the new image itself; the parent's container and builder are its own affair.
        let mut file = ImageConfig {
            architecture: self.file.architecture.clone(),
            variant: self.file.variant.clone(),
            os: self.file.os.clone(),
            os_version: self.file.os_version.clone(),
            author: author.clone(),
            created: Some(created.to_owned()),
            config: self.config.clone(),
            history: self.file.history.clone(),
            rootfs: self.file.rootfs.clone(),
            ..ImageConfig::default()
        };
        file.history.push(History {
            created: Some(created.to_owned()),
            author,
            created_by: created_by.join(" "),
            comment: String::new(),
            empty_layer: layer.is_none(),
        });
        if let Some(layer) = layer {
            file.rootfs.diff_ids.push(diff_id(layer)?);
        }
        Ok(file)
    }

    /// Goes on from an image that a step made, now or before.
    pub fn advance(&mut self, image_id: String, file: ImageConfig, layers: Vec<proto::Layer>) {
        self.file = file;
        self.layers = layers;
        self.become_image(image_id);
    }

    fn become_image(&mut self, image_id: String) {
        self.config.image.clone_from(&image_id);
        self.image_id = image_id;
    }

    /// What a step's result depends on besides the command: its parent, and the configuration that it leads to.
    pub fn key(&self, command: &[String]) -> Result<String, Failure> {
        let inputs = ("step 1", &self.image_id, &self.file.architecture, &self.author, &self.config, command);
        Ok(Digest::of(&serde_json::to_vec(&inputs).map_err(Failure::caused)?).hex().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_inputs_only() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut stage = Stage { image_id: "sha256:a".into(), ..Stage::default() };
        let key = stage.key(&words(&["run", "x"])).expect("key");
        stage.cache_missed = true;
        stage.file.created = Some("now".into());
        assert_eq!(stage.key(&words(&["run", "x"])).expect("key"), key);
        assert_ne!(stage.key(&words(&["run x"])).expect("key"), key);
        crate::image::set_variable(&mut stage.config, "A", "1");
        assert_ne!(stage.key(&words(&["run", "x"])).expect("key"), key);
    }

    #[test]
    fn a_child_adds_to_history_and_layers() {
        let id = |name: &str| DiffId::new(Digest::of(name.as_bytes()));
        let mut stage = Stage::default();
        stage.file.rootfs.diff_ids.push(id("1"));
        let layer = proto::Layer { diff_id: id("2").to_string(), ..proto::Layer::default() };
        let command = ["/bin/sh".to_owned(), "-c".to_owned(), "x".to_owned()];
        let child = stage.child(&command, Some(&layer), "now").expect("child");
        assert_eq!(child.rootfs.diff_ids, [id("1"), id("2")]);
        assert_eq!(child.history[0].created_by, "/bin/sh -c x");
        assert!(!child.history[0].empty_layer);
        assert!(stage.child(&command, None, "now").expect("child").history[0].empty_layer);
    }
}
