use std::sync::Arc;
use std::time::Duration;

use bus::Target;
use bus::calls::NodeHello;
use runtime::shim::{self, ExitStatus};

use crate::containers::Container;
use crate::node::{Node, lock};

/// Finds the containers on disk again; shims that live are joined, ends that were missed are told.
pub async fn rescan(node: &Arc<Node>) {
    let Ok(folders) = std::fs::read_dir(node.machine_dir.join("containers")) else { return };
    for folder in folders.flatten() {
        let container = match Container::load(&folder.path()) {
            Ok(container) => Arc::new(container),
            Err(error) => {
                tracing::warn!(%error, folder = %folder.path().display(), "a container's folder could not be read");
                continue;
            }
        };
        lock(&node.containers).insert(container.status().id, container.clone());
        if !container.is_running() {
            continue;
        }
        let dir = container.dir.join("shim");
        if let Some(handle) = shim::adopt(&dir) {
            *lock(&container.shim) = Some(Arc::new(handle));
            node.watch(&container);
            continue;
        }
        if let Err(error) = shim::clean_up(&node.shim_binary, &dir).await {
            tracing::warn!(%error, "what a dead shim left could not be cleared");
        }
        let end = shim::exit_status(&dir).unwrap_or_else(|| ExitStatus {
            code: 137,
            oom: false,
            finished_at_ns: runtime::wire::now_ns(),
            error: String::new(),
        });
        node.ended(&container, &end).await;
    }
}

/// Tells the gateway what is here, until it has heard.
pub async fn hello(node: Arc<Node>) {
    loop {
        let (epoch, seq) = node.number();
        let containers = lock(&node.containers).values().map(|container| container.status()).collect();
        let inventory = proto::NodeInventory { node_id: node.id.clone(), epoch, seq, containers };
        let hello = proto::NodeHello { info: Some(node.info()), inventory: Some(inventory) };
        match node.bus.call::<NodeHello>(&Target::Gateway, &hello).await {
            Ok(_) => return,
            Err(error) => tracing::info!(%error, "the gateway has not answered yet"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
