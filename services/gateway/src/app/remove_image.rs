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
        let name = wanted.parse::<model::ImageRef>().ok().map(|name| name.or_latest().familiar());
        let by_name = name.filter(|name| image.tags.contains(name));
        let mut done = Vec::new();
        let mut stopped = Containers::Keep;
        if let Some(name) = by_name {
            if image.tags.len() > 1 {
                self.untag(&image, &name, &mut done).await?;
                return Ok(done);
            }
            if !force && let Some(container) = self.db.containers_of_image(&image.id).await?.first() {
                return Err(Failure::conflict(format!(
                    "conflict: unable to remove repository reference \"{wanted}\" (must force) - container {} is using its referenced image {}",
                    short_id(&container.id),
                    short_id(&image.id)
                )));
            }
            let held = self.is_held(&image).await?;
            self.untag(&image, &name, &mut done).await?;
            if held {
                return Ok(done);
            }
        } else {
            let repositories: std::collections::BTreeSet<_> = image.tags.iter().map(|tag| repository_of(tag)).collect();
            if repositories.len() > 1 && !force {
                return Err(conflict(&image, "must be forced", "image is referenced in multiple repositories"));
            }
            self.check_unused(&image, force).await?;
            if force {
                stopped = Containers::Ignore;
            }
            for tag in &image.tags {
                self.untag(&image, tag, &mut done).await?;
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

    pub async fn untag(&self, image: &Image, tag: &str, done: &mut Vec<Value>) -> Outcome<()> {
        if !self.db.untag(tag, &image.id).await? {
            // It was moved or removed meanwhile.
            return Ok(());
        }
        self.tell_image(image, "untag", &image.id);
        done.push(json!({"Untagged": tag}));
        Ok(())
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
            if !parent.tags.is_empty() || !self.forget(&parent, Containers::Keep, done).await? {
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
        for other in self.db.images().await? {
            kept.extend(chain_ids(other.layers.iter().map(|layer| layer.diff_id.as_str())));
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
            for node in self.known_nodes().await {
                let request = proto::ForgetLayers { diff_ids: diff_ids.clone() };
                if let Err(error) = self.node_call::<calls::ForgetLayers>(&node.id, &request).await {
                    tracing::warn!(%error, node_id = node.id, "a node keeps unpacked layers");
                }
            }
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

    /// Digests that images name.
    pub async fn blobs_in_use(&self) -> Outcome<HashSet<String>> {
        let mut used = HashSet::new();
        for image in self.db.images().await? {
            used.extend(image.layers.into_iter().map(|layer| layer.digest));
            used.insert(image.id);
        }
        for container in self.db.containers().await? {
            use prost::Message as _;
            let spec = proto::ContainerSpec::decode(container.spec.as_slice()).unwrap_or_default();
            used.extend(spec.layers.into_iter().filter_map(|layer| layer.blob).map(|blob| blob.digest));
        }
        Ok(used)
    }
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

    #[test]
    fn a_chain_id_covers_what_lies_below() {
        let ids = chain_ids(["sha256:a", "sha256:b"].into_iter());
        assert_eq!(ids[0], "sha256:a");
        assert_eq!(ids[1], model::Digest::of(b"sha256:a sha256:b").to_string());
    }
}
