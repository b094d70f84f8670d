use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bus::{Target, calls};

use super::builds::BuildState;
use super::containers::State;
use crate::app::remove_image::has_name;
use crate::app::{App, Outcome, view};
use crate::shape;

/// A layer store that is busy is left out.
const PATIENCE: Duration = Duration::from_secs(2);

shape! {
    /// The whole Boxyard in a few numbers.
    pub struct Summary {
        /// Version of this gateway.
        pub version: String,
        /// Containers by state: every state, with zero.
        pub containers: BTreeMap<String, u64>,
        /// Images, without those that are only steps of a build.
        pub images: u64,
        /// What all images hold together, in bytes; a layer that they share counts once.
        pub image_bytes: u64,
        /// Builds of the last day by state: every state, with zero.
        pub builds: BTreeMap<String, u64>,
        /// What lies in the layer store; null while it does not answer.
        pub store: Option<Store>,
    }

    /// What lies in the layer store.
    pub struct Store {
        /// Blobs.
        pub blobs: u64,
        /// Their bytes.
        pub bytes: u64,
        /// Bytes that are free on its disk.
        pub free_bytes: u64,
    }
}

impl App {
    pub async fn summary(&self) -> Outcome<Summary> {
        let mut containers: BTreeMap<String, u64> =
            State::ALL.iter().map(|state| (state.word().to_owned(), 0)).collect();
        for container in self.db.containers().await? {
            *containers.entry(view::state_word(view::status_of(&container).state()).to_owned()).or_default() += 1;
        }
        let mut builds: BTreeMap<String, u64> =
            BuildState::ALL.iter().map(|state| (state.word().to_owned(), 0)).collect();
        for (state, _, count) in self.db.count_builds().await? {
            *builds.entry(state).or_default() += count.unsigned_abs();
        }
        let images = self.db.images().await?;
        let parents: HashSet<&str> = images.iter().map(|image| image.parent_id.as_str()).collect();
        let layers: HashMap<&str, u64> = images
            .iter()
            .flat_map(|image| &image.layers)
            .map(|layer| (layer.diff_id.as_str(), layer.content_bytes))
            .collect();
        let shown = images.iter().filter(|image| has_name(image) || !parents.contains(image.id.as_str()));
        Ok(Summary {
            version: service::VERSION.to_owned(),
            containers,
            images: shown.count() as u64,
            image_bytes: layers.values().sum(),
            builds,
            store: self.store_usage().await,
        })
    }

    async fn store_usage(&self) -> Option<Store> {
        let asked = self.bus.call::<calls::Usage>(&Target::Store, &proto::Empty {});
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(usage)) => {
                Some(Store { blobs: usage.blob_count, bytes: usage.blob_bytes, free_bytes: usage.free_bytes })
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the layer store does not say what it holds");
                None
            }
            Err(_) => None,
        }
    }
}
