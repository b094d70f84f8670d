//! Finds the containers on disk again after a restart of the node, of everything, or of the machine.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bus::Target;
use bus::calls::NodeHello;
use proto::{ContainerRemove, ContainerState};
use runtime::shim;

use crate::containers::{Container, write};
use crate::node::{Node, lock};
use crate::stop::RESUME_FILE;

/// Of the boot in which the containers ran.
const BOOT_FILE: &str = "boot-id";
/// Between two greetings.
const GREETING: Duration = Duration::from_secs(30);
/// Docker's exit code of a container that was running when its machine went down.
const MACHINE_WENT_DOWN: i32 = 255;

/// Shims that live are joined, ends that were missed are told, and each container's fate is logged.
pub async fn rescan(node: &Arc<Node>) {
    node.empty_trash().await;
    let rebooted = note_boot(&node.machine_dir);
    for folder in std::fs::read_dir(node.machine_dir.join("containers")).into_iter().flatten().flatten() {
        match Container::load(&folder.path()) {
            Ok(container) => again(node, Arc::new(container), rebooted).await,
            // Its creation was never answered.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let _ = std::fs::remove_dir_all(folder.path());
            }
            Err(error) => {
                tracing::error!(%error, folder = %folder.path().display(), "a container's folder could not be read");
            }
        }
    }
    let stopped = std::fs::remove_file(node.machine_dir.join(RESUME_FILE)).is_ok();
    if stopped || rebooted {
        node.resume();
    }
}

async fn again(node: &Arc<Node>, container: Arc<Container>, rebooted: bool) {
    let id = container.status().id;
    lock(&node.containers).insert(id.clone(), container.clone());
    match container.status().state() {
        ContainerState::Running | ContainerState::Paused => {}
        state => {
            take_back(node, &container).await;
            if state == ContainerState::Restarting {
                node.restart_later(&container);
            }
            return;
        }
    }
    let dir = container.dir.join("shim");
    if let Some(handle) = shim::adopt(&dir) {
        tracing::info!(container_id = %id, "a running container was found again");
        *lock(&container.shim) = Some(Arc::new(handle));
        // Before the first look of this node's own, which would be ended too.
        node.rescan_execs(&container);
        node.watch(&container);
        return;
    }
    let deleted = !node.machine_dir.join("runtime").join(&id).exists();
    let end = match shim::exit_status(&dir).filter(|_| deleted) {
        Some(end) => end,
        None => node.clear_dead(&container, if rebooted { MACHINE_WENT_DOWN } else { 137 }).await,
    };
    tracing::info!(container_id = %id, exit_code = end.code, "a container has ended while the node was away");
    node.rescan_execs(&container);
    node.ended(&container, &end).await;
}

/// A start that was never answered, since the node was killed in its middle, leaves nothing.
async fn take_back(node: &Arc<Node>, container: &Container) {
    let dir = container.dir.join("shim");
    if let Some(handle) = shim::adopt(&dir) {
        tracing::warn!(container_id = %container.status().id, "a start that was not answered is taken back");
        crate::stop::end(&handle).await;
    }
    if node.machine_dir.join("runtime").join(&container.status().id).exists() {
        node.clear_dead(container, 137).await;
    }
    node.take_down(&container.status().id, &container.dir).await;
}

/// Whether the machine was started anew since the last time.
fn note_boot(machine_dir: &Path) -> bool {
    let now = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let file = machine_dir.join(BOOT_FILE);
    let before = std::fs::read(&file).unwrap_or_default();
    if before == now {
        return false;
    }
    if let Err(error) = write(&file, &now) {
        tracing::warn!(%error, "this boot could not be recorded");
    }
    !before.is_empty()
}

/// Tells the gateway what is here, again and again: what either of the two has missed is mended by it.
pub async fn greet(node: Arc<Node>) {
    let mut unknown = HashSet::new();
    loop {
        let (epoch, seq) = node.number();
        let containers: Vec<_> = lock(&node.containers).values().map(|container| container.status()).collect();
        let held: Vec<String> = containers.iter().map(|status| status.id.clone()).collect();
        let inventory = proto::NodeInventory { node_id: node.id.clone(), epoch, seq, containers };
        let hello = proto::NodeHello { info: Some(node.info()), inventory: Some(inventory) };
        let pause = match node.bus.call::<NodeHello>(&Target::Gateway, &hello).await {
            Ok(reply) => {
                let known: HashSet<String> = reply.known_ids.into_iter().collect();
                let now = held.into_iter().filter(|id| !known.contains(id)).collect();
                forget(&node, &unknown & &now).await;
                unknown = now;
                GREETING
            }
            Err(error) => {
                tracing::info!(%error, "the gateway has not answered yet");
                Duration::from_millis(300)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Containers whose record is gone, twice in a row: their creation was never answered.
async fn forget(node: &Arc<Node>, unknown: HashSet<String>) {
    for id in unknown {
        tracing::warn!(container_id = %id, "the gateway has no record of a container; it is removed");
        let request = ContainerRemove { id, force: true, remove_volumes: true };
        if let Err(error) = node.remove(&request).await {
            tracing::warn!(%error, "a container without a record could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_is_no_reboot_and_another_boot_is_one() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(!note_boot(dir.path()), "nothing ran before");
        assert!(!note_boot(dir.path()), "the same boot");
        std::fs::write(dir.path().join(BOOT_FILE), "another").expect("written");
        assert!(note_boot(dir.path()));
        assert!(!note_boot(dir.path()), "noted");
    }
}
