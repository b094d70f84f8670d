use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::page::{List, Page};
use super::shape::Time;
use crate::app::images::{config_of, size_of};
use crate::app::remove_image::has_name;
use crate::app::{App, Outcome, view};
use crate::shape;

shape! {
    /// An image.
    pub struct Image {
        /// Its id: the digest of its config.
        pub id: String,
        /// Its names.
        pub tags: Vec<String>,
        /// Digests of its layers' tars (diff ids), base layer first.
        pub layers: Vec<String>,
        /// Sum of its files, in bytes.
        pub size_bytes: u64,
        /// When it was made, by its own account.
        pub created_at: Option<Time>,
        /// amd64, arm64 ...
        pub architecture: String,
        /// linux ...
        pub os: String,
        /// Its labels.
        pub labels: BTreeMap<String, String>,
        /// How many containers stand on it.
        pub containers: u64,
        /// Whether it is only a step of a build; such ones are listed with `all`.
        pub intermediate: bool,
    }
}

impl App {
    /// Images; those that are only steps of a build with `all`.
    pub async fn image_list(&self, page: &Page, all: bool) -> Outcome<List<Image>> {
        let mut images = self.db.images().await?;
        let parents: HashSet<String> = images.iter().map(|image| image.parent_id.clone()).collect();
        let is_step = |image: &metadata::Image| !has_name(image) && parents.contains(&image.id);
        images.retain(|image| all || !is_step(image));
        let mut users: HashMap<String, u64> = HashMap::new();
        for container in self.db.containers().await? {
            *users.entry(container.image_id).or_default() += 1;
        }
        // A config is read once for its order, and again for the page only.
        let list = page.of(images, |image| (view::created_s(&config_of(image)), image.id.clone()));
        Ok(list.map(|image| {
            let config = config_of(&image);
            let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
            let labels = config.pointer("/config/Labels").and_then(Value::as_object).into_iter().flatten();
            Image {
                size_bytes: size_of(&image),
                layers: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
                created_at: Time::of_ms(view::created_s(&config).saturating_mul(1000)),
                architecture: text("architecture"),
                os: text("os"),
                labels: labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
                containers: users.get(&image.id).copied().unwrap_or(0),
                intermediate: is_step(&image),
                tags: image.tags,
                id: image.id,
            }
        }))
    }
}
