//! Removal: the folder goes into the trash by one rename, which is the answer; the rest happens behind it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::Error;
use model::ErrorKind;
use proto::{ContainerRemove, NodeEvent};
use runtime::shim;

use crate::commit::{blocking, io};
use crate::containers::Container;
use crate::node::{Node, lock};

/// Folders of removed containers, until they are deleted.
const TRASH: &str = "trash";

impl Node {
    pub async fn remove(self: &Arc<Self>, request: &ContainerRemove) -> Result<Vec<NodeEvent>, Error> {
        let container = self.container(&request.id)?;
        let _busy = loop {
            if container.is_running() {
                self.end_for_removal(&container, request).await?;
            }
            container.stopped.store(true, Ordering::SeqCst);
            let busy = container.busy.lock().await;
            // Another removal was first.
            self.container(&request.id)?;
            if !container.is_running() {
                break busy;
            }
            // A start was ahead of this.
            container.stopped.store(false, Ordering::SeqCst);
        };
        let folder = self.machine_dir.join(TRASH).join(&request.id);
        std::fs::create_dir_all(self.machine_dir.join(TRASH))
            .and_then(|()| std::fs::rename(&container.dir, &folder))
            .map_err(|e| Error::internal(format!("removing a container's folder: {e}")))?;
        self.forget_execs(&container);
        lock(&self.containers).remove(&request.id);
        lock(&container.shim).take();
        let event = self.tell_removed(&container);
        let (node, id, resources) = (self.clone(), request.id.clone(), container.resources.clone());
        let clearing = self.tasks.spawn(async move {
            let _resources = resources.lock().await;
            node.clear(&id, &folder).await;
        });
        let spec = container.spec();
        if request.remove_volumes && self.has_anonymous_volumes(&spec) {
            let _ = clearing.await;
            self.drop_volumes(&spec);
        }
        Ok(vec![event])
    }

    async fn end_for_removal(self: &Arc<Self>, container: &Container, request: &ContainerRemove) -> Result<(), Error> {
        if !request.force {
            return Err(Error::conflict(format!(
                "cannot remove container \"{}\": container is running: stop the container before removing or force remove",
                request.id
            )));
        }
        match self.kill(&request.id, "KILL").await {
            // It ended by itself.
            Err(error) if !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable) => return Err(error),
            _ => {}
        }
        container.stands(None).await;
        Ok(())
    }

    /// What is left of removed containers from an earlier run.
    pub async fn empty_trash(&self) {
        for folder in std::fs::read_dir(self.machine_dir.join(TRASH)).into_iter().flatten().flatten() {
            self.clear(&folder.file_name().to_string_lossy(), &folder.path()).await;
        }
    }

    async fn clear(&self, id: &str, folder: &Path) {
        let dir = folder.join("shim");
        // One that a client joined and that never started, or one that is about to leave.
        match shim::adopt(&dir) {
            Some(handle) if handle.started().is_none() && shim::exit_status(&dir).is_none() => {
                crate::stop::retire(&handle).await;
            }
            _ => shim::Handle::gone(&dir).wait_gone().await,
        }
        self.take_down(id, folder).await;
        if let Err(error) = self.snapshots.release(id) {
            tracing::warn!(%error, container_id = %id, "the layers of a removed container are still held");
        }
        let folder = folder.to_owned();
        if let Err(error) = blocking(move || std::fs::remove_dir_all(folder).map_err(io)).await {
            tracing::warn!(%error, container_id = %id, "a removed container's folder could not be deleted");
        }
    }
}
