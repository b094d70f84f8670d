use model::ErrorKind;
use proto::ContainerState;
use serde_json::{Map, Value, json};

use super::{App, Outcome, builds::label_of, filters::Filters, view};

impl App {
    /// Stopped containers.
    pub async fn prune_containers(&self, filters: &Filters) -> Outcome<Value> {
        let until = filters.until_ms(metadata::now_ms())?;
        let mut deleted = Vec::new();
        let mut bytes = 0;
        for container in self.db.containers().await? {
            let state = view::status_of(&container).state();
            let labels = view::spec_of(&container).labels;
            if !matches!(state, ContainerState::Created | ContainerState::Exited | ContainerState::Dead)
                || until.is_some_and(|until| container.created_ms > until)
                || !filters.labels(|name, value| has(labels.get(name).map(String::as_str), value))
            {
                continue;
            }
            let sizes = self.sizes(std::slice::from_ref(&container)).await.unwrap_or_default();
            match self.remove_container(&container.id, false, false).await {
                Ok(()) => {
                    bytes += sizes.get(&container.id).map_or(0, |size| size.0);
                    deleted.push(container.id);
                }
                // It was started or removed since.
                Err(failure) if matches!(failure.kind, ErrorKind::Conflict | ErrorKind::NotFound) => {}
                Err(failure) => return Err(failure),
            }
        }
        self.tell("container", "prune", "", reclaimed(bytes));
        Ok(json!({"ContainersDeleted": listed(deleted), "SpaceReclaimed": bytes}))
    }

    /// Dangling images; every unused one with `dangling=false`.
    pub async fn prune_images(&self, filters: &Filters) -> Outcome<Value> {
        let all = filters.flag("dangling")? == Some(false);
        let until = filters.until_ms(metadata::now_ms())?;
        let mut done = Vec::new();
        let mut bytes = 0;
        for image in self.db.images().await? {
            let config = super::images::config_of(&image);
            let wanted = ((image.tags.is_empty() && image.platform_of.is_empty()) || all)
                && until.is_none_or(|until| view::created_s(&config) * 1000 <= until)
                && filters.labels(|name, value| has(label_of(&config, name), value));
            // An earlier one may have taken it along.
            let Some(image) = self.db.image(&image.id).await?.filter(|_| wanted) else { continue };
            if !self.is_held(&image).await? {
                self.remove_names(&image, &mut done).await?;
                bytes += self.delete_chain(&image, true, metadata::Containers::Keep, &mut done).await?;
            }
        }
        self.tell("image", "prune", "", reclaimed(bytes));
        Ok(json!({"ImagesDeleted": listed(done), "SpaceReclaimed": bytes}))
    }
}

fn has(have: Option<&str>, wanted: Option<&str>) -> bool {
    have.is_some_and(|have| wanted.is_none_or(|wanted| wanted == have))
}

fn listed<T: serde::Serialize>(list: Vec<T>) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn reclaimed(bytes: impl ToString) -> Map<String, Value> {
    Map::from_iter([("reclaimed".to_owned(), bytes.to_string().into())])
}
