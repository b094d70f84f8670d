//! What events of containers are told from, also when their record has gone by the time that this gateway hears of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use metadata::Container;
use proto::ContainerSpec;
use serde_json::{Map, Value};

use super::{App, Outcome, lock, view};

/// So many containers that have gone are known still: an event of theirs may come late.
const GONE: usize = 256;

/// Name, image, labels and network of a container: nothing else of its spec.
#[derive(Clone)]
pub struct Known(pub ContainerSpec);

impl Known {
    pub fn of(container: &Container) -> Self {
        let spec = view::spec_of(container);
        Self(ContainerSpec {
            id: container.id.clone(),
            name: container.name.clone(),
            image_name: spec.image_name,
            labels: spec.labels,
            network_mode: spec.network_mode,
            ..ContainerSpec::default()
        })
    }

    /// Docker's attributes of every event of a container: image, name and labels.
    pub fn attributes(&self) -> Map<String, Value> {
        let labels = self.0.labels.iter().map(|(key, value)| (key.clone(), value.clone().into()));
        let mut attributes: Map<String, Value> = labels.collect();
        attributes.insert("image".into(), self.0.image_name.clone().into());
        attributes.insert("name".into(), self.0.name.clone().into());
        attributes
    }
}

/// The containers that were heard of.
#[derive(Default)]
pub struct Containers(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    by_id: HashMap<String, Arc<Known>>,
    gone: VecDeque<String>,
}

impl Containers {
    pub fn get(&self, id: &str) -> Option<Arc<Known>> {
        lock(&self.0).by_id.get(id).cloned()
    }

    pub fn remember(&self, known: Known) -> Arc<Known> {
        let known = Arc::new(known);
        lock(&self.0).by_id.insert(known.0.id.clone(), known.clone());
        known
    }

    /// The container has another name from now on.
    pub fn rename(&self, id: &str, name: &str) {
        if let Some(known) = lock(&self.0).by_id.get_mut(id) {
            Arc::make_mut(known).0.name = name.to_owned();
        }
    }

    /// The container has gone: it is known for a while yet.
    pub fn let_go(&self, id: &str) {
        let mut remembered = lock(&self.0);
        if !remembered.by_id.contains_key(id) || remembered.gone.iter().any(|gone| gone == id) {
            return;
        }
        remembered.gone.push_back(id.to_owned());
        if remembered.gone.len() > GONE
            && let Some(oldest) = remembered.gone.pop_front()
        {
            remembered.by_id.remove(&oldest);
        }
    }
}

impl App {
    /// What is known of a container: what was heard of it, else by its record.
    pub async fn known(&self, id: &str) -> Outcome<Option<Arc<Known>>> {
        Ok(match self.containers.get(id) {
            Some(known) => Some(known),
            None => self.db.container(id).await?.map(|record| self.containers.remember(Known::of(&record))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_went_are_known() {
        let containers = Containers::default();
        let known = |id: String| Known(ContainerSpec { id, ..ContainerSpec::default() });
        containers.remember(known("stays".to_owned()));
        for number in 0..=GONE {
            containers.remember(known(number.to_string()));
            containers.let_go(&number.to_string());
            containers.let_go(&number.to_string());
        }
        containers.rename("stays", "renamed");
        assert_eq!(containers.get("stays").map(|known| known.0.name.clone()).as_deref(), Some("renamed"));
        assert!(containers.get("0").is_none() && containers.get("1").is_some());
    }
}
