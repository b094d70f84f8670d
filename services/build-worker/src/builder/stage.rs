use super::told::Told;
use crate::failure::Failure;
use crate::layers::{diff_id, diff_ids};
use crate::squash::Base;
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
    /// What FROM named, unless that was `scratch`.
    pub base: Option<Base>,
    /// The configuration of the next image.
    pub config: ContainerConfig,
    /// MAINTAINER of this stage.
    pub author: Option<String>,
    /// A CMD of this stage is not dropped by a later ENTRYPOINT.
    pub cmd_set: bool,
    /// After the first miss nothing more is looked up.
    pub cache_missed: bool,
    /// What the step reads that has not begun yet.
    pub read: Vec<proto::KeyInput>,
    /// What is told of the step that has begun.
    pub told: Option<Told>,
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
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// All that a step's result depends on.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Inputs {
        parent: String,
        architecture: String,
        author: Option<String>,
        env: Vec<String>,
        user: String,
        working_dir: String,
        volumes: BTreeSet<String>,
        command: Vec<String>,
    }

    fn inputs() -> impl Strategy<Value = Inputs> {
        let words = || proptest::collection::vec("[ab ]{0,2}", 0..3);
        let author = proptest::option::of("[ab]{0,1}");
        let volumes = proptest::collection::btree_set("[ab]", 0..2);
        ("[ab]", "[ab]", author, words(), "[ab]{0,1}", "[ab]{0,1}", volumes, words()).prop_map(
            |(parent, architecture, author, env, user, working_dir, volumes, command)| Inputs {
                parent,
                architecture,
                author,
                env,
                user,
                working_dir,
                volumes,
                command,
            },
        )
    }

    /// The key of these inputs, in a stage whose other fields are `noise`.
    fn key(inputs: &Inputs, noise: (bool, &str)) -> String {
        let Inputs { parent, architecture, author, env, user, working_dir, volumes, command } = inputs.clone();
        let (flag, text) = noise;
        let mut stage = Stage { image_id: parent, author, cmd_set: flag, cache_missed: flag, ..Stage::default() };
        stage.name = Some(text.to_owned());
        stage.layers = vec![proto::Layer { diff_id: text.to_owned(), ..proto::Layer::default() }];
        stage.file.architecture = architecture;
        stage.file.created = Some(text.to_owned());
        stage.file.history.push(History { created_by: text.to_owned(), ..History::default() });
        stage.config.env = env;
        stage.config.user = user;
        stage.config.working_dir = working_dir;
        stage.config.volumes = volumes.into_iter().map(|path| (path, Default::default())).collect();
        stage.key(&command).expect("a key")
    }

    proptest! {
        #[test]
        fn keys_are_alike_when_and_only_when_the_inputs_are(one in inputs(), other in inputs(), which in 0..8) {
            let mut next = one.clone();
            match which {
                0 => next.parent = other.parent,
                1 => next.architecture = other.architecture,
                2 => next.author = other.author,
                3 => next.env = other.env,
                4 => next.user = other.user,
                5 => next.working_dir = other.working_dir,
                6 => next.volumes = other.volumes,
                _ => next.command = other.command,
            }
            prop_assert_eq!(key(&one, (false, "x")) == key(&next, (false, "x")), one == next);
        }

        #[test]
        fn what_is_no_input_changes_no_key(inputs in inputs(), flag: bool, text in "[a-z]{0,3}") {
            prop_assert_eq!(key(&inputs, (false, "x")), key(&inputs, (flag, &text)));
        }
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
