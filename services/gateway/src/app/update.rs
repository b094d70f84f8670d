use bus::calls;
use engine_api::HostConfig;
use prost::Message as _;
use serde_json::Value;

use super::containers::FromJson as _;
use super::{App, Outcome, checks, spec, view};

impl App {
    /// Lays the limits and the restart policy of `raw` over the container's; a field that is absent or null stays.
    pub async fn update_container(&self, wanted: &str, raw: &Value) -> Outcome<()> {
        let container = self.find_container(wanted).await?;
        let mut request: Value = serde_json::from_str(&container.request).unwrap_or_default();
        let changed = raw.as_object().cloned().unwrap_or_default();
        let host = &mut request["HostConfig"];
        for (key, value) in changed {
            let empty = value.is_null()
                || value.as_i64() == Some(0)
                || value.as_str() == Some("")
                || value.as_array().is_some_and(Vec::is_empty)
                || (key == "RestartPolicy" && value["Name"].as_str().is_none_or(str::is_empty));
            if !empty {
                host[key.as_str()] = value;
            }
        }
        let host_config = HostConfig::deserialize_from(host)?;
        checks::host(&host_config, &request)?;
        let resources = spec::resources(&host_config);
        let restart = spec::restart_of(&host_config);
        let update = proto::ContainerUpdate {
            id: container.id.clone(),
            resources: Some(resources.clone()),
            restart: Some(restart.clone()),
        };
        let reply = self.change::<calls::ContainerUpdate>(&container.node_id, &update).await?;
        let after =
            proto::ContainerSpec { resources: Some(resources), restart: Some(restart), ..view::spec_of(&container) };
        self.db.set_container_spec(&container.id, &after.encode_to_vec(), &request.to_string()).await?;
        if !reply.events.iter().any(|event| event.action == "update") {
            self.tell_container(&container, "update", &[]);
        }
        Ok(())
    }
}
