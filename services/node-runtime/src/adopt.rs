//! Containers of build steps that stay behind: the worker of this machine ran them, the node keeps them.

use std::path::Path;
use std::sync::Arc;

use bus::Error;
use proto::{ContainerAdopt, ContainerRemove, ContainerState, NodeEvent};

use crate::node::Node;

/// Here a worker puts what a step's container changed, under the container's id. No path comes with the call, since a
/// worker must not be able to have any folder of the machine moved.
const HANDOVER: &str = "handover";
/// Tells the machine's workers whom they hand containers to.
const ID_FILE: &str = "node-id";

pub fn announce(machine_dir: &Path, id: &str) -> std::io::Result<()> {
    let draft = machine_dir.join("node-id.new");
    std::fs::write(&draft, id)?;
    std::fs::rename(draft, machine_dir.join(ID_FILE))
}

impl Node {
    pub async fn adopt(self: &Arc<Self>, request: ContainerAdopt) -> Result<Vec<NodeEvent>, Error> {
        let spec = request.spec.unwrap_or_default();
        let id = spec.id.clone();
        let mut events = self.create(spec).await?;
        let container = self.container(&id)?;
        if request.changed {
            let from = self.machine_dir.join(HANDOVER).join(&id);
            if let Err(error) = std::fs::rename(&from, container.dir.join("upper")) {
                self.remove(&ContainerRemove { id: id.clone(), force: true, remove_volumes: true }).await?;
                return Err(Error::internal(format!("taking over container {id}: {error}")));
            }
        }
        let ran = request.started_at_ns != 0;
        container.change(|status| {
            status.set_state(if ran { ContainerState::Exited } else { ContainerState::Created });
            status.exit_code = request.exit_code;
            status.started_at_ns = request.started_at_ns;
            status.finished_at_ns = request.finished_at_ns;
        })?;
        if ran {
            events.push(self.tell(&container, "start", &[]));
            events.push(self.tell(&container, "die", &[("exitCode", request.exit_code.to_string())]));
        } else if request.exit_code != 0 {
            // Its command could not be started: nothing happened, but its status says why it never ran.
            events.push(self.tell(&container, "", &[]));
        }
        Ok(events)
    }
}
