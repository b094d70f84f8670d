//! Everything that is recorded to keep a blob of the layer store, and which blob.

use std::collections::{BTreeMap, HashMap, HashSet};

use metadata::Layer;
use prost::Message as _;

use super::{App, Outcome, view};

/// Who keeps a blob. In the order in which it is accounted for: what an image has is an image's, whoever else has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Image,
    Container,
    Packed,
    Step,
    CacheMount,
    Context,
    Log,
}

/// One that keeps a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub kind: Kind,
    /// Id, key or digest of the one that keeps it.
    pub id: String,
    /// Names, or what it is.
    pub about: String,
}

/// Who keeps which blob.
#[derive(Default)]
pub struct Holders {
    blobs: HashMap<String, Vec<Holder>>,
    /// Layers by their diff ids: the digests of their blobs.
    layers: BTreeMap<String, Vec<String>>,
}

impl Holders {
    fn add(&mut self, digest: &str, kind: Kind, id: &str, about: impl Into<String>) {
        let holder = Holder { kind, id: id.to_owned(), about: about.into() };
        let holders = self.blobs.entry(digest.to_owned()).or_default();
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }

    fn add_layer(&mut self, layer: &Layer, kind: Kind, id: &str, about: &str) {
        self.note_layer(&layer.diff_id, &layer.digest);
        self.add(&layer.digest, kind, id, about);
    }

    fn note_layer(&mut self, diff_id: &str, digest: &str) {
        let blobs = self.layers.entry(diff_id.to_owned()).or_default();
        if !blobs.iter().any(|known| known == digest) {
            blobs.push(digest.to_owned());
        }
    }

    /// Those of a blob, in the order of their kinds.
    pub fn of(&self, digest: &str) -> Vec<Holder> {
        let mut holders = self.blobs.get(digest).cloned().unwrap_or_default();
        holders.sort_by(|a, b| (a.kind, &a.about, &a.id).cmp(&(b.kind, &b.about, &b.id)));
        holders
    }

    /// What a blob is accounted to.
    pub fn first_of(&self, digest: &str) -> Option<Kind> {
        self.blobs.get(digest)?.iter().map(|holder| holder.kind).min()
    }

    /// The blobs of a layer.
    pub fn blobs_of(&self, diff_id: &str) -> &[String] {
        self.layers.get(diff_id).map_or(&[], Vec::as_slice)
    }

    /// The diff id of a layer whose blob this is.
    pub fn diff_id_of(&self, digest: &str) -> Option<&str> {
        let of = |(_, blobs): &(&String, &Vec<String>)| blobs.iter().any(|blob| blob == digest);
        self.layers.iter().find(of).map(|(diff_id, _)| diff_id.as_str())
    }

    /// All digests and diff ids that are known.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.blobs.keys().chain(self.layers.keys()).map(String::as_str)
    }
}

impl App {
    /// Reads all records.
    pub async fn holders(&self) -> Outcome<Holders> {
        let mut holders = Holders::default();
        for image in self.db.images().await? {
            let names: Vec<&str> =
                image.tags.iter().chain(&image.digests).chain(&image.platform_of).map(String::as_str).collect();
            let about = if names.is_empty() { "<none>".to_owned() } else { names.join(", ") };
            holders.add(&image.id, Kind::Image, &image.id, format!("config of {about}"));
            image.layers.iter().for_each(|layer| holders.add_layer(layer, Kind::Image, &image.id, &about));
        }
        for container in self.db.containers().await? {
            let spec = view::spec_of(&container);
            let about = format!("{} ({})", spec.name, view::state_word(view::status_of(&container).state()));
            for layer in &spec.layers {
                if let Some(blob) = &layer.blob {
                    holders.note_layer(&layer.diff_id, &blob.digest);
                    holders.add(&blob.digest, Kind::Container, &container.id, about.as_str());
                }
            }
        }
        let steps = self.db.cached_steps().await?;
        for step in &steps {
            step.layers.iter().for_each(|layer| holders.add_layer(layer, Kind::Step, &step.key, &step.description));
        }
        for packed in self.db.packed_in_store().await? {
            // It goes with its layer.
            if !holders.blobs_of(&packed.diff_id).is_empty() {
                holders.add(&packed.digest, Kind::Packed, &packed.diff_id, "packed for registries");
            }
        }
        for mount in self.db.cache_mounts().await? {
            mount.blobs().for_each(|blob| holders.add(&blob, Kind::CacheMount, &mount.key, mount.id.as_str()));
        }
        for context in self.db.contexts().await? {
            let packs = context.packs.iter().map(|(digest, _)| digest).chain([&context.tree]);
            packs.for_each(|blob| holders.add(blob, Kind::Context, &context.id, "files that a client sent"));
        }
        for log in self.db.build_logs().await? {
            holders.add(&log.log, Kind::Log, &log.id, "log of the build");
        }
        Ok(holders)
    }

    /// The builds that made or found the results of these steps, by the steps' keys: newest first, at most `most` of each,
    /// with the line of their Dockerfiles.
    pub async fn builds_of_steps(
        &self,
        keys: &HashSet<String>,
        most: usize,
    ) -> Outcome<HashMap<String, Vec<(String, u32)>>> {
        let mut builds: HashMap<String, Vec<(String, u32)>> =
            keys.iter().map(|key| (key.clone(), Vec::new())).collect();
        for id in self.db.all_build_ids().await? {
            if builds.values().all(|of_step| of_step.len() >= most) {
                break;
            }
            // One build's at a time: what they say of all their inputs is much.
            for vertex in self.db.build_steps(&id).await? {
                let Ok(vertex) = proto::BuildVertex::decode(vertex.as_slice()) else { continue };
                if let Some(of_step) = builds.get_mut(&vertex.key)
                    && of_step.len() < most
                    && of_step.last().is_none_or(|(last, _)| *last != id)
                {
                    of_step.push((id.clone(), vertex.line));
                }
            }
        }
        Ok(builds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_accounted_to_its_image_whoever_else_has_it() {
        let mut holders = Holders::default();
        let layer = Layer {
            diff_id: "sha256:d".to_owned(),
            media_type: String::new(),
            digest: "sha256:b".to_owned(),
            size: 1,
            content_bytes: 1,
        };
        holders.add_layer(&layer, Kind::Step, "key", "RUN x");
        assert_eq!(holders.first_of("sha256:b"), Some(Kind::Step));
        holders.add_layer(&layer, Kind::Image, "sha256:i", "x:1");
        holders.add_layer(&layer, Kind::Image, "sha256:i", "x:1");
        assert_eq!(holders.first_of("sha256:b"), Some(Kind::Image));
        let kinds: Vec<Kind> = holders.of("sha256:b").into_iter().map(|holder| holder.kind).collect();
        assert_eq!(kinds, [Kind::Image, Kind::Step]);
        assert_eq!(
            (holders.blobs_of("sha256:d"), holders.diff_id_of("sha256:b")),
            (&["sha256:b".to_owned()][..], Some("sha256:d"))
        );
        assert_eq!(holders.first_of("sha256:other"), None);
    }
}
