//! `--cache-from`: images whose own history serves as cache, as the classic builder has it. With it, an earlier result of
//! this Boxyard counts only when one of these images was built on it.

use std::collections::HashSet;

use bus::{Target, calls};
use model::{Digest, ErrorKind};
use oci::ImageConfig;

use super::Builder;
use super::stage::Stage;
use crate::failure::Failure;

/// An image named by `--cache-from`.
#[derive(Debug)]
pub struct Source {
    image: proto::Image,
    file: ImageConfig,
    /// Its own id and those of the images that it was built on.
    line: HashSet<String>,
}

impl Builder {
    /// Looks the images up; one that is not there is left out.
    pub(super) async fn sources(&self) -> Result<Vec<Source>, Failure> {
        let mut sources = Vec::new();
        if self.options.no_cache {
            return Ok(sources);
        }
        for reference in &self.options.cache_from {
            let Some(image) = self.known_image(reference).await? else {
                tracing::info!(image = %reference, "a cache source is not there");
                continue;
            };
            let mut line = HashSet::from([image.id.clone()]);
            let mut next = image.parent_id.clone();
            while !next.is_empty() && line.insert(next.clone()) {
                next = self.known_image(&next).await?.map(|image| image.parent_id).unwrap_or_default();
            }
            let file = ImageConfig::parse(&image.config).map_err(Failure::caused)?;
            sources.push(Source { image, file, line });
        }
        Ok(sources)
    }

    async fn known_image(&self, reference: &str) -> Result<Option<proto::Image>, Failure> {
        let request = proto::ImageResolve {
            reference: reference.to_owned(),
            build_id: self.build_id.clone(),
            attempt: self.attempt,
            local: true,
            ..proto::ImageResolve::default()
        };
        match self.bus.call::<calls::ImageResolve>(&Target::Gateway, &request).await {
            Ok(image) => Ok(Some(image)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an earlier result may be used.
    pub(super) async fn may_use(&self, image_id: &str) -> bool {
        self.options.cache_from.is_empty()
            || self.sources.lock().await.iter().any(|source| source.line.contains(image_id))
    }

    /// Takes a step out of a source's history, and makes it an image of its own where it is not the source's last.
    pub(super) async fn restore(&self, stage: &mut Stage, command: &[String]) -> Result<bool, Failure> {
        let mut sources = self.sources.lock().await;
        let line = command.join(" ");
        let Some(at) = sources.iter().position(|source| source.goes_on(&stage.file, &line)) else {
            return Ok(false);
        };
        if !self.layers.pin(&sources[at].image.layers).await? {
            return Ok(false);
        }
        let source = sources.swap_remove(at);
        let (image, file) = source.step(stage)?;
        // From one source to another is no way back.
        *sources = vec![source];
        drop(sources);
        let result = proto::StepResult {
            build_id: self.build_id.clone(),
            attempt: self.attempt,
            key: stage.key(command)?,
            image: Some(image.clone()),
        };
        self.recorder.add(None, result, None).await?;
        stage.advance(image.id, file, image.layers);
        Ok(true)
    }
}

impl Source {
    /// Whether this image begins as `parent` does, and has `line` next.
    fn goes_on(&self, parent: &ImageConfig, line: &str) -> bool {
        let (history, layers) = (&self.file.history, &self.file.rootfs.diff_ids);
        history.len() > parent.history.len()
            && history.starts_with(&parent.history)
            && layers.starts_with(&parent.rootfs.diff_ids)
            && history[parent.history.len()].created_by == line
    }

    /// The image after the next step. The caller knows that there is one.
    fn step(&self, stage: &Stage) -> Result<(proto::Image, ImageConfig), Failure> {
        let at = stage.file.history.len();
        let parent_id = stage.image_id.clone();
        if at + 1 == self.file.history.len() {
            return Ok((proto::Image { parent_id, tags: Vec::new(), ..self.image.clone() }, self.file.clone()));
        }
        let entry = self.file.history[at].clone();
        let number = self.file.history[..at].iter().filter(|entry| !entry.empty_layer).count();
        let layer = match entry.empty_layer {
            true => None,
            false => Some(self.image.layers.get(number).ok_or_else(|| Failure::internal("an image lacks a layer"))?),
        };
        let created = entry.created.clone().unwrap_or_default();
        let mut file = stage.child(&[], layer, &created)?;
        file.history.pop();
        file.history.push(entry);
        let config = file.to_bytes();
        let mut layers = stage.layers.clone();
        layers.extend(layer.cloned());
        let id = Digest::of(&config).to_string();
        Ok((proto::Image { id, config, layers, parent_id, ..proto::Image::default() }, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DiffId;
    use oci::History;

    fn file(steps: &[(&str, bool)]) -> ImageConfig {
        let entry = |&(by, empty_layer): &(&str, bool)| History {
            created: Some("2020-01-01T00:00:00Z".to_owned()),
            created_by: by.to_owned(),
            empty_layer,
            ..History::default()
        };
        let mut file = ImageConfig { history: steps.iter().map(entry).collect(), ..ImageConfig::default() };
        let layers = steps.iter().filter(|step| !step.1);
        file.rootfs.diff_ids = layers.map(|step| DiffId::new(Digest::of(step.0.as_bytes()))).collect();
        file
    }

    fn source(steps: &[(&str, bool)]) -> Source {
        let file = file(steps);
        let layer = |id: &DiffId| proto::Layer { diff_id: id.to_string(), ..proto::Layer::default() };
        let layers = file.rootfs.diff_ids.iter().map(layer).collect();
        let image = proto::Image { id: "sha256:whole".to_owned(), layers, ..proto::Image::default() };
        Source { image, file, line: HashSet::new() }
    }

    #[test]
    fn histories_are_followed_step_by_step() {
        let source = source(&[("base", false), ("env", true), ("run", false)]);
        let parent = file(&[("base", false)]);
        for (parent, line, follows) in [
            (&parent, "env", true),
            (&parent, "run", false),
            (&file(&[("other", false)]), "env", false),
            (&file(&[("base", false), ("env", true), ("run", false)]), "more", false),
        ] {
            assert_eq!(source.goes_on(parent, line), follows, "{line}");
        }
        let mut stage = Stage { image_id: "sha256:base".to_owned(), file: parent, ..Stage::default() };
        stage.layers = source.image.layers[..1].to_vec();
        let (image, file) = source.step(&stage).expect("a step");
        assert_eq!((image.layers.len(), image.parent_id.as_str()), (1, "sha256:base"));
        assert_eq!(file.history, source.file.history[..2]);
        stage.advance(image.id, file, image.layers);
        let (last, _) = source.step(&stage).expect("the last step");
        assert_eq!((last.id.as_str(), last.layers.len()), ("sha256:whole", 2));
    }
}
