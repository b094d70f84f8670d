use proto::ContainerState;
use serde_json::{Value, json};

use super::{App, Outcome, view};

impl App {
    pub async fn prune_containers(&self) -> Outcome<Value> {
        let mut deleted = Vec::new();
        let mut bytes = 0;
        for container in self.db.containers().await? {
            let state = view::status_of(&container).state();
            if matches!(state, ContainerState::Created | ContainerState::Exited | ContainerState::Dead) {
                let sizes = self.sizes(std::slice::from_ref(&container)).await.unwrap_or_default();
                bytes += sizes.get(&container.id).map_or(0, |size| size.0);
                self.remove_container(&container.id, false, false).await?;
                deleted.push(container.id);
            }
        }
        Ok(
            json!({"ContainersDeleted": if deleted.is_empty() { Value::Null } else { json!(deleted) }, "SpaceReclaimed": bytes}),
        )
    }

    pub async fn prune_images(&self, all: bool) -> Outcome<Value> {
        let mut done = Vec::new();
        let mut bytes = 0;
        for image in self.db.images().await? {
            let wanted = image.tags.is_empty() || all;
            // An earlier one may have taken it along.
            let there = self.db.image(&image.id).await?.is_some();
            let held = !self.db.children(&image.id).await?.is_empty()
                || !self.db.containers_of_image(&image.id).await?.is_empty();
            if wanted && there && !held {
                done.extend(image.tags.iter().map(|tag| json!({"Untagged": tag})));
                bytes += self.delete_chain(&image, true, &mut done).await?;
            }
        }
        Ok(json!({"ImagesDeleted": if done.is_empty() { Value::Null } else { json!(done) }, "SpaceReclaimed": bytes}))
    }
}
