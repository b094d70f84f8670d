use bus::calls;
use serde_json::{Value, json};

use super::{App, Failure, Outcome, view};

impl App {
    /// POST /commit.
    pub async fn commit(&self, wanted: &str, commit: Commit) -> Outcome<String> {
        let container = self.find_container(wanted).await?;
        if container.image_id.is_empty() {
            let text =
                format!("container {wanted} stands on a step of a build and on no image: it cannot be committed");
            return Err(Failure::invalid(text));
        }
        let parent = self.find_image(&container.image_id).await?;
        let lease = self.lease("commit").await?;
        let request = proto::ContainerCommit { id: container.id.clone(), pause: commit.pause, lease: lease.id.clone() };
        let reply = self.node_call::<calls::ContainerCommit>(&container.node_id, &request).await?;
        let made: Value = serde_json::from_str(&container.request).unwrap_or_default();
        let mut config = super::images::config_of(&parent);
        let now = engine_api::time(super::now_ns());
        let mut layers: Vec<proto::Layer> = parent.layers.iter().cloned().map(super::images::layer_message).collect();
        let mut entry =
            json!({"created": now, "created_by": view::spec_of(&container).args.join(" "), "comment": commit.comment});
        if !commit.author.is_empty() {
            entry["author"] = commit.author.clone().into();
            config["author"] = commit.author.into();
        }
        match reply.layer.filter(|_| !reply.empty) {
            Some(layer) => {
                if let Some(list) = config.pointer_mut("/rootfs/diff_ids").and_then(Value::as_array_mut) {
                    list.push(layer.diff_id.clone().into());
                }
                layers.push(layer);
            }
            None => entry["empty_layer"] = true.into(),
        }
        let mut history = config["history"].as_array().cloned().unwrap_or_default();
        history.push(entry);
        config["history"] = history.into();
        config["created"] = now.into();
        config["container"] = container.id.clone().into();
        let mut run = made["Config"].clone();
        if let Some(run) = run.as_object_mut() {
            // The docker command sends an empty list of volumes where there is none.
            let is_none = |key: &str, value: &Value| value.is_null() || key == "Volumes" && *value == json!({});
            run.retain(|key, value| !is_none(key, value) && key != "Hostname");
            run.insert("Hostname".into(), made["Config"]["Hostname"].clone());
        }
        if !commit.config.is_null() {
            run = engine_api::fill(run, &commit.config);
        }
        config["config"] = run;
        let config = view::with_changes(config, &commit.changes)?;
        let id = self.store_image(&config, layers, parent.id, commit.name.clone(), &lease.id).await?;
        if let (Some(name), Some(image)) = (&commit.name, self.db.image(&id).await?) {
            self.tell_image(&image, "tag", &name.clone().or_latest().familiar());
        }
        let reference = commit.name.map(|name| name.or_latest().familiar()).unwrap_or_default();
        let more = [("comment", commit.comment.as_str()), ("imageID", &id), ("imageRef", &reference)];
        self.tell_container(&container, "commit", &more);
        Ok(id)
    }
}

pub struct Commit {
    pub name: Option<model::ImageRef>,
    pub comment: String,
    pub author: String,
    pub pause: bool,
    pub changes: Vec<String>,
    /// A config in the body: laid over the container's.
    pub config: Value,
}
