use bus::calls;
use engine_api::CreateRequest;
use prost::Message as _;
use serde_json::json;

use super::containers::FromJson as _;
use super::{App, Outcome, names, spec};

/// Names that are tried before it is given up.
const NAMES: u32 = 10;

impl App {
    /// A step's container that stays behind becomes a container of the node on the worker's machine, as if it had been
    /// created with the step's command on the step's parent.
    ///
    /// # Errors
    /// As [`App::held_by`].
    pub async fn step_container(&self, user: &str, request: proto::StepContainer) -> Outcome<proto::Empty> {
        self.held_by(user, &request.build_id, request.attempt).await?;
        let image = self.find_image(&request.image_id).await?;
        // An entrypoint of the image must not come before the step's command.
        let asked = json!({"Image": image.id, "Cmd": request.args, "Entrypoint": [""], "Env": request.env});
        let id = request.id.clone();
        let mut container = metadata::Container {
            id: id.clone(),
            name: String::new(),
            node_id: request.node_id.clone(),
            image_id: image.id.clone(),
            spec: Vec::new(),
            request: String::new(),
            status: proto::ContainerStatus { id: id.clone(), ..Default::default() }.encode_to_vec(),
            created_ms: request.created_at_ns / 1_000_000,
            epoch: 0,
            seq: 0,
        };
        let mut adopt = proto::ContainerAdopt {
            spec: None,
            exit_code: request.exit_code,
            started_at_ns: request.started_at_ns,
            finished_at_ns: request.finished_at_ns,
            changed: request.changed,
        };
        for attempt in 0..=NAMES {
            container.name = names::random_name(attempt);
            let mut merged =
                spec::merge(&id, &container.name, &image, CreateRequest::deserialize_from(&asked)?, &asked)?;
            merged.request["Config"]["Entrypoint"] = serde_json::Value::Null;
            (container.spec, container.request) = (merged.spec.encode_to_vec(), merged.request.to_string());
            adopt.spec = Some(merged.spec);
            match self.db.insert_container(&container).await {
                Ok(()) => break,
                Err(error) if error.kind() == model::ErrorKind::Conflict && attempt < NAMES => {}
                Err(error) => return Err(error.into()),
            }
        }
        let adopted = self.change::<calls::ContainerAdopt>(&container.node_id, &adopt).await;
        if adopted.is_err() {
            self.db.forget_container(&id).await?;
        }
        adopted.map(|_| proto::Empty {})
    }
}
