use std::collections::HashSet;

use bus::{Target, calls};
use metadata::Containers;
use model::short_id;
use serde_json::{Map, Value, json};

use super::images::{Image, repository_of};
use super::{App, Failure, Outcome};

impl App {
    /// DELETE /images/{name} by Docker's rules: a name is untagged, and the image goes with its last name.
    pub async fn remove_image(&self, wanted: &str, force: bool, prune: bool) -> Outcome<Vec<Value>> {
        let image = self.find_image(wanted).await?;
        let mut done = Vec::new();
        let mut stopped = Containers::Keep;
        match name_of(&image, wanted) {
            Some(name) => {
                if !force
                    && is_one_repository(&image)
                    && let Some(container) = self.db.containers_of_image(&image.id).await?.first()
                {
                    return Err(Failure::conflict(format!(
                        "conflict: unable to remove repository reference \"{wanted}\" (must force) - container {} is using its referenced image {}",
                        short_id(&container.id),
                        short_id(&image.id)
                    )));
                }
                let held = self.is_held(&image).await?;
                let left = self.remove_name(&image, &name, &mut done).await?;
                if held || left > 0 {
                    return Ok(done);
                }
            }
            None => {
                if !is_one_repository(&image) && !force {
                    return Err(conflict(&image, "must be forced", "image is referenced in multiple repositories"));
                }
                self.check_unused(&image, force).await?;
                if force {
                    stopped = Containers::Ignore;
                }
                self.remove_names(&image, &mut done).await?;
            }
        }
        self.delete_chain(&image, prune, stopped, &mut done).await?;
        Ok(done)
    }

    /// Whether children, containers or running builds stand on it.
    pub async fn is_held(&self, image: &Image) -> Outcome<bool> {
        let children = !self.db.children(&image.id).await?.is_empty();
        let containers = !self.db.containers_of_image(&image.id).await?.is_empty();
        Ok(children || containers || self.db.is_in_build(&image.id).await?)
    }

    async fn check_unused(&self, image: &Image, force: bool) -> Outcome<()> {
        if !self.db.children(&image.id).await?.is_empty() {
            return Err(conflict(image, "cannot be forced", "image has dependent child images"));
        }
        if self.db.is_in_build(&image.id).await? {
            return Err(conflict(image, "cannot be forced", "image is being used by a running build"));
        }
        for container in self.db.containers_of_image(&image.id).await? {
            let id = short_id(&container.id);
            if super::view::status_of(&container).state() == proto::ContainerState::Running {
                return Err(conflict(
                    image,
                    "cannot be forced",
                    &format!("image is being used by running container {id}"),
                ));
            }
            if !force {
                return Err(conflict(
                    image,
                    "must be forced",
                    &format!("image is being used by stopped container {id}"),
                ));
            }
        }
        Ok(())
    }

    /// Takes a name away; with the last tag of a repository its digests go too. Says how many names are left.
    async fn remove_name(&self, image: &Image, name: &str, done: &mut Vec<Value>) -> Outcome<usize> {
        let repository = repository_of(name);
        let left = image.tags.iter().chain(&image.digests).filter(|other| *other != name).count();
        let is_last =
            !is_digest(name) && !image.tags.iter().any(|other| other != name && repository_of(other) == repository);
        if !self.forget_name(image, name, done).await? {
            return Ok(left);
        }
        self.tell_image(image, "untag", &image.id);
        let mut with_it = 0;
        for digest in image.digests.iter().filter(|digest| is_last && repository_of(digest) == repository) {
            self.forget_name(image, digest, done).await?;
            with_it += 1;
        }
        Ok(left - with_it)
    }

    /// Takes all names of an image away.
    pub async fn remove_names(&self, image: &Image, done: &mut Vec<Value>) -> Outcome<()> {
        for name in image.tags.iter().chain(&image.digests) {
            if self.forget_name(image, name, done).await? {
                self.tell_image(image, "untag", &image.id);
            }
        }
        Ok(())
    }

    /// Says whether it was still the image's: it may have been moved or removed meanwhile. The images that the name meant
    /// for other platforms go with it, unless something else keeps them.
    async fn forget_name(&self, image: &Image, name: &str, done: &mut Vec<Value>) -> Outcome<bool> {
        let platforms = self.db.platforms_of_tag(name).await?;
        let was_its = match is_digest(name) {
            true => self.db.forget_digest(name, &image.id).await?,
            false => self.db.untag(name, &image.id).await?,
        };
        if !was_its {
            return Ok(false);
        }
        done.push(json!({"Untagged": name}));
        for platform in platforms.into_iter().filter(|platform| platform.image_id != image.id) {
            let Some(other) = self.db.image(&platform.image_id).await? else { continue };
            if !has_name(&other) && !self.is_held(&other).await? {
                // Boxed, since this is what a removal calls for its names.
                Box::pin(self.delete_chain(&other, false, Containers::Keep, done)).await?;
            }
        }
        Ok(true)
    }

    /// Deletes the record, then its untagged parents that nobody else needs, and lets the layers go.
    pub async fn delete_chain(
        &self,
        image: &Image,
        prune: bool,
        containers: Containers,
        done: &mut Vec<Value>,
    ) -> Outcome<u64> {
        let mut gone = vec![image.clone()];
        if !self.forget(image, containers, done).await? {
            return Ok(0);
        }
        let mut parent_id = image.parent_id.clone();
        while prune && !parent_id.is_empty() {
            let Some(parent) = self.db.image(&parent_id).await? else { break };
            if has_name(&parent) || !self.forget(&parent, Containers::Keep, done).await? {
                break;
            }
            parent_id.clone_from(&parent.parent_id);
            gone.push(parent);
        }
        self.release(&gone).await
    }

    /// Says whether it went; something may have begun to stand on it meanwhile.
    async fn forget(&self, image: &Image, containers: Containers, done: &mut Vec<Value>) -> Outcome<bool> {
        if !self.db.forget_image(&image.id, containers).await? {
            return Ok(false);
        }
        self.tell("image", "delete", &image.id, Map::from_iter([("name".to_owned(), image.id.clone().into())]));
        done.push(json!({"Deleted": image.id}));
        // Docker names the layers that went with it, from the top, by what they and all below them hold.
        let mut kept = HashSet::new();
        for (_, layers) in self.db.image_layers().await? {
            kept.extend(chain_ids(layers.iter().map(|layer| layer.diff_id.as_str())));
        }
        for container in self.db.containers_of_image(&image.id).await? {
            let spec = super::view::spec_of(&container);
            kept.extend(chain_ids(spec.layers.iter().map(|layer| layer.diff_id.as_str())));
        }
        let chain = chain_ids(image.layers.iter().map(|layer| layer.diff_id.as_str()));
        done.extend(chain.into_iter().rev().filter(|id| !kept.contains(id)).map(|id| json!({"Deleted": id})));
        Ok(true)
    }

    /// Lets the store unlink what no record names any more; says how many bytes of content that were.
    async fn release(&self, gone: &[Image]) -> Outcome<u64> {
        let used = self.blobs_in_use().await?;
        let mut digests: Vec<String> = gone.iter().map(|image| image.id.clone()).collect();
        let mut layers: Vec<&metadata::Layer> = Vec::new();
        for layer in gone.iter().flat_map(|image| &image.layers) {
            if !used.contains(&layer.digest) && !digests.contains(&layer.digest) {
                digests.push(layer.digest.clone());
                layers.push(layer);
            }
        }
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        if !diff_ids.is_empty() {
            let packed = self.db.packed_in_store().await?.into_iter();
            digests.extend(packed.filter(|packed| diff_ids.contains(&packed.diff_id)).map(|packed| packed.digest));
            self.db.forget_packed(&diff_ids).await?;
            self.forget_layers(diff_ids).await;
        }
        let kept = self.release_blobs(digests).await;
        Ok(layers.iter().filter(|layer| !kept.contains(&layer.digest)).map(|layer| layer.content_bytes).sum())
    }

    /// Asks the store to unlink blobs that no record names any more; says which it kept, since a lease holds them.
    pub async fn release_blobs(&self, digests: Vec<String>) -> Vec<String> {
        let request = proto::BlobsRelease { digests };
        match self.bus.call::<calls::BlobsRelease>(&Target::Store, &request).await {
            Ok(reply) => reply.kept,
            Err(error) => {
                tracing::warn!(%error, "the layer store keeps blobs that no image names");
                request.digests
            }
        }
    }

    /// Digests of blobs that images, steps' results and containers name, of packed layers that belong to their layers, of
    /// builds' logs, of clients' last contexts and of cache mounts.
    pub async fn blobs_in_use(&self) -> Outcome<HashSet<String>> {
        let (mut used, mut diff_ids) = self.blobs_of_images().await?;
        for layer in self.db.step_result_layers().await? {
            used.insert(layer.digest);
            diff_ids.insert(layer.diff_id);
        }
        used.extend(self.db.build_logs().await?.into_iter().map(|log| log.log));
        let packed = self.db.packed_in_store().await?.into_iter();
        used.extend(packed.filter(|packed| diff_ids.contains(&packed.diff_id)).map(|packed| packed.digest));
        used.extend(self.context_blobs().await?);
        used.extend(self.db.cache_mounts().await?.iter().flat_map(metadata::CacheMount::blobs));
        Ok(used)
    }

    /// Digests, and diff ids of layers, that images and containers name.
    pub async fn blobs_of_images(&self) -> Outcome<(HashSet<String>, HashSet<String>)> {
        let (mut used, mut diff_ids) = (HashSet::new(), HashSet::new());
        for (id, layers) in self.db.image_layers().await? {
            for layer in layers {
                used.insert(layer.digest);
                diff_ids.insert(layer.diff_id);
            }
            used.insert(id);
        }
        for container in self.db.containers().await? {
            for layer in super::view::spec_of(&container).layers {
                used.extend(layer.blob.map(|blob| blob.digest));
                diff_ids.insert(layer.diff_id);
            }
        }
        Ok((used, diff_ids))
    }
}

/// Which of the image's names `wanted` is; none where it is an id.
fn name_of(image: &Image, wanted: &str) -> Option<String> {
    let name = wanted.parse::<model::ImageRef>().ok()?.or_latest();
    let name = if name.digest().is_some() { name.without_tag() } else { name }.familiar();
    image.tags.iter().chain(&image.digests).any(|other| *other == name).then_some(name)
}

/// Whether all names are of one repository and at most one of them is a tag.
fn is_one_repository(image: &Image) -> bool {
    let names = image.tags.iter().chain(&image.digests);
    let repositories: HashSet<&str> = names.map(|name| repository_of(name)).collect();
    repositories.len() <= 1 && image.tags.len() <= 1
}

fn is_digest(name: &str) -> bool {
    name.contains('@')
}

/// An image without a name is an intermediate one, or dangles.
pub fn has_name(image: &Image) -> bool {
    !image.tags.is_empty() || !image.digests.is_empty()
}

/// Whether the only names of an image are those that mean it for another platform than this one's.
pub fn is_of_other_platform(image: &Image) -> bool {
    !has_name(image) && !image.platform_of.is_empty()
}

fn conflict(image: &Image, force: &str, why: &str) -> Failure {
    Failure::conflict(format!("conflict: unable to delete {} ({force}) - {why}", short_id(&image.id)))
}

/// OCI image-spec, "Layer ChainID": base layer first.
fn chain_ids<'a>(diff_ids: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.to_owned(),
            Some(below) => model::Digest::of(format!("{below} {diff_id}").as_bytes()).to_string(),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(names: &[&str]) -> Image {
        let (digests, tags) = names.iter().map(|name| (*name).to_owned()).partition(|name| is_digest(name));
        let (id, config, layers, parent_id) = ("sha256:1".to_owned(), Vec::new(), Vec::new(), String::new());
        Image { id, config, layers, parent_id, recorded_ms: 0, tags, digests, platform_of: Vec::new() }
    }

    #[test]
    fn names_of_one_repository() {
        for (names, one) in [
            (&[][..], true),
            (&["x:1"], true),
            (&["x:1", "x@sha256:a"], true),
            (&["x@sha256:a", "x@sha256:b"], true),
            (&["x:1", "x:2"], false),
            (&["x:1", "y@sha256:a"], false),
            (&["localhost:5000/x:1", "localhost:5000/x@sha256:a"], true),
        ] {
            assert_eq!(is_one_repository(&image(names)), one, "{names:?}");
        }
    }

    #[test]
    fn a_name_is_told_from_an_id() {
        let by_digest = format!("x@sha256:{}", "a".repeat(64));
        let image = image(&["x:latest", &by_digest]);
        for (wanted, name) in [
            ("x", Some("x:latest")),
            ("docker.io/library/x:latest", Some("x:latest")),
            (&by_digest, Some(by_digest.as_str())),
            ("sha256:1", None),
            ("x:2", None),
        ] {
            assert_eq!(name_of(&image, wanted).as_deref(), name, "{wanted}");
        }
    }

    #[test]
    fn a_chain_id_covers_what_lies_below() {
        let ids = chain_ids(["sha256:a", "sha256:b"].into_iter());
        assert_eq!(ids[0], "sha256:a");
        assert_eq!(ids[1], model::Digest::of(b"sha256:a sha256:b").to_string());
    }
}
