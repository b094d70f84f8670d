use std::collections::{BTreeMap, HashSet};

use bus::calls;
use engine_api::time;
use model::ErrorKind;
use serde_json::{Map, Value, json};

use super::{App, Failure, Outcome, filters::Filters, view};

/// A volume and the node that holds it.
struct Placed {
    node_id: String,
    volume: proto::VolumeInfo,
}

impl App {
    /// Those of all nodes that give signs of life.
    ///
    /// # Errors
    /// `Unavailable` when one does not answer: what it holds must not be taken for missing.
    async fn volumes(&self) -> Outcome<Vec<Placed>> {
        let mut all = Vec::new();
        for node in self.known_nodes().await {
            let list = self.node_call::<calls::VolumeList>(&node.id, &proto::Empty {}).await?;
            all.extend(placed(&node.id, list));
        }
        Ok(all)
    }

    /// The same to look at: those of a node that was lost just now are left out.
    async fn volumes_to_show(&self) -> Outcome<Vec<Placed>> {
        let mut all = Vec::new();
        for node in self.known_nodes().await {
            let list = self.node_call_if_there::<calls::VolumeList>(&node.id, &proto::Empty {}).await?;
            all.extend(placed(&node.id, list.unwrap_or_default()));
        }
        Ok(all)
    }

    /// The nodes that hold those of these volumes that are there already.
    pub(super) async fn nodes_of_volumes(&self, names: &HashSet<&str>) -> Outcome<Vec<String>> {
        let placed = self.volumes().await?;
        Ok(placed.into_iter().filter(|p| names.contains(p.volume.name.as_str())).map(|p| p.node_id).collect())
    }

    /// Names of volumes that containers mount.
    async fn mounted_volumes(&self) -> Outcome<HashSet<String>> {
        let containers = self.db.containers().await?;
        let mounts = containers.iter().flat_map(|container| view::status_of(container).mounts);
        Ok(mounts.filter(|mount| mount.r#type == "volume").map(|mount| mount.name).collect())
    }

    pub async fn list_volumes(&self, filters: &Filters) -> Outcome<Value> {
        let dangling = filters.flag("dangling")?;
        let mounted = self.mounted_volumes().await?;
        let volumes = self.volumes_to_show().await?.into_iter().map(|placed| placed.volume).filter(|volume| {
            dangling.is_none_or(|wanted| wanted != mounted.contains(&volume.name))
                && filters.any("name", |v| volume.name.contains(v))
                && filters.any("driver", |v| v == "local")
                && filters.labels(|name, value| has_label(volume, name, value))
        });
        let rows: Vec<Value> = volumes.map(|volume| shown(&volume)).collect();
        Ok(json!({"Volumes": rows, "Warnings": null}))
    }

    async fn find_volume(&self, name: &str) -> Outcome<Placed> {
        let found = self.volumes().await?.into_iter().find(|placed| placed.volume.name == name);
        found.ok_or_else(|| Failure::not_found(format!("get {name}: no such volume")))
    }

    pub async fn inspect_volume(&self, name: &str) -> Outcome<Value> {
        Ok(shown(&self.find_volume(name).await?.volume))
    }

    pub async fn create_volume(&self, spec: proto::VolumeSpec) -> Outcome<Value> {
        let held = match spec.name.is_empty() {
            true => None,
            false => self.find_volume(&spec.name).await.ok().map(|placed| placed.node_id),
        };
        let known = held.is_some();
        let node_id = match held {
            Some(node_id) => node_id,
            None => self.place_volume(&spec.labels).await?,
        };
        let volume = self.node_call::<calls::VolumeCreate>(&node_id, &spec).await?;
        if !known {
            self.tell("volume", "create", &volume.name, local());
        }
        Ok(shown(&volume))
    }

    pub async fn remove_volume(&self, name: &str, force: bool) -> Outcome<()> {
        let placed = match self.find_volume(name).await {
            Err(failure) if failure.kind == ErrorKind::NotFound && force => return Ok(()),
            other => other?,
        };
        let request = proto::VolumeRef { name: name.to_owned(), force };
        self.node_call::<calls::VolumeRemove>(&placed.node_id, &request).await?;
        self.tell("volume", "destroy", name, local());
        Ok(())
    }

    /// Anonymous ones that no container mounts; with `all` named ones too.
    pub async fn prune_volumes(&self, filters: &Filters) -> Outcome<Value> {
        let all = filters.flag("all")?.unwrap_or(false);
        let mounted = self.mounted_volumes().await?;
        let (mut names, mut bytes) = (Vec::new(), 0);
        for placed in self.volumes().await? {
            let volume = placed.volume;
            if mounted.contains(&volume.name)
                || !(all || volume.anonymous)
                || !filters.labels(|name, value| has_label(&volume, name, value))
            {
                continue;
            }
            match self.remove_volume(&volume.name, false).await {
                Ok(()) => {
                    bytes += volume.bytes;
                    names.push(volume.name);
                }
                // A container was made with it since.
                Err(failure) if failure.kind == ErrorKind::Conflict => {}
                Err(failure) => return Err(failure),
            }
        }
        self.tell("volume", "prune", "", Map::from_iter([("reclaimed".to_owned(), bytes.to_string().into())]));
        Ok(
            json!({"VolumesDeleted": if names.is_empty() { Value::Null } else { json!(names) }, "SpaceReclaimed": bytes}),
        )
    }

    /// Docker tells `create` of every volume that a new container names, known or not.
    pub fn tell_volumes(&self, status: Option<&proto::ContainerStatus>) {
        for mount in status.into_iter().flat_map(|status| &status.mounts).filter(|mount| mount.r#type == "volume") {
            self.tell("volume", "create", &mount.name, local());
        }
    }

    /// The anonymous volumes of a container that was removed with them: those that the node has named itself.
    pub fn tell_volumes_gone(&self, container: &metadata::Container) {
        let anonymous = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        for mount in view::status_of(container).mounts.iter().filter(|mount| anonymous(&mount.name)) {
            self.tell("volume", "destroy", &mount.name, local());
        }
    }

    /// The rows of GET /system/df.
    pub async fn volumes_with_usage(&self) -> Outcome<Value> {
        let containers = self.db.containers().await?;
        let mounts: Vec<String> = containers
            .iter()
            .flat_map(|container| view::status_of(container).mounts)
            .filter(|mount| mount.r#type == "volume")
            .map(|mount| mount.name)
            .collect();
        let rows = self.volumes_to_show().await?.into_iter().map(|placed| {
            let mut row = shown(&placed.volume);
            let users = mounts.iter().filter(|name| **name == placed.volume.name).count();
            row["UsageData"] = json!({"RefCount": users, "Size": placed.volume.bytes});
            row
        });
        Ok(rows.collect())
    }
}

fn placed(node_id: &str, list: proto::VolumeList) -> impl Iterator<Item = Placed> {
    list.volumes.into_iter().map(move |volume| Placed { node_id: node_id.to_owned(), volume })
}

fn local() -> Map<String, Value> {
    Map::from_iter([("driver".to_owned(), "local".into())])
}

fn labels(volume: &proto::VolumeInfo) -> BTreeMap<&str, &str> {
    let mut labels: BTreeMap<&str, &str> = volume.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    if volume.anonymous {
        labels.insert("com.docker.volume.anonymous", "");
    }
    labels
}

fn has_label(volume: &proto::VolumeInfo, name: &str, value: Option<&str>) -> bool {
    labels(volume).get(name).is_some_and(|have| value.is_none_or(|value| value == *have))
}

fn shown(volume: &proto::VolumeInfo) -> Value {
    let labels = labels(volume);
    let options: BTreeMap<_, _> = volume.options.iter().collect();
    json!({
        "CreatedAt": time(volume.created_at_ns), "Driver": "local",
        "Labels": if labels.is_empty() { Value::Null } else { json!(labels) }, "Mountpoint": volume.mountpoint,
        "Name": volume.name, "Options": if options.is_empty() { Value::Null } else { json!(options) }, "Scope": "local"
    })
}
