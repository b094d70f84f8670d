//! What a container changed: listed, packed as a layer, measured; and its whole tree as a tar.

use std::io::{Seek as _, SeekFrom};
use std::sync::Arc;

use bus::Error;
use prost::Message as _;
use proto::{
    ChangesReply, ChangesRequest, CommitReply, ContainerCommit, ContainerExport, ContainerSize, Descriptor, Empty,
    Layer, SizeReply, SizeRequest,
};
use snapshots::{ChangeKind, MountSpec};

use crate::containers::{Container, write};
use crate::node::{Node, lock};
use crate::start::{diff_ids, runtime_error, snapshot};

/// Changes in one reply; a message is small.
const PAGE: usize = 2000;
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(e.to_string()))?
}

pub fn io(error: std::io::Error) -> Error {
    Error::internal(error.to_string())
}

impl Node {
    pub async fn changes(&self, request: ChangesRequest) -> Result<ChangesReply, Error> {
        let container = self.container(&request.id)?;
        let layers = self.stack(&container.spec()).await?;
        let snapshots = self.snapshots.clone();
        blocking(move || {
            let mut changes = snapshots.changes(&container.dir.join("upper"), &layers).map_err(snapshot)?;
            changes.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
            changes.retain(|change| change.path.to_string_lossy().as_ref() > request.after_path.as_str());
            let more = changes.len() > PAGE;
            let named = changes.into_iter().take(PAGE).map(|change| proto::Change {
                kind: match change.kind {
                    ChangeKind::Modified => proto::change::Kind::Modified,
                    ChangeKind::Added => proto::change::Kind::Added,
                    ChangeKind::Deleted => proto::change::Kind::Deleted,
                } as i32,
                path: change.path.to_string_lossy().into_owned(),
            });
            Ok(ChangesReply { changes: named.collect(), more })
        })
        .await
    }

    pub async fn commit(&self, request: ContainerCommit) -> Result<CommitReply, Error> {
        let container = self.container(&request.id)?;
        let layers = self.ensure_layers(&container.spec()).await?;
        let _busy = container.busy.lock().await;
        let group = runtime::cgroup::Cgroup::new(&self.cgroup(&request.id));
        let freeze = request.pause && container.status().state() == proto::ContainerState::Running;
        if freeze {
            group.freeze().map_err(runtime_error)?;
        }
        let (snapshots, upper) = (self.snapshots.clone(), container.dir.join("upper"));
        let packed = blocking(move || {
            let file = tempfile::tempfile().map_err(io)?;
            let mut writer = model::Sha256Writer::new(std::io::BufWriter::new(file));
            let stat = snapshots.diff(&upper, &layers, &mut writer).map_err(snapshot)?;
            let (file, digest, size) = writer.finish();
            let mut file = file.into_inner().map_err(|e| io(e.into_error()))?;
            file.seek(SeekFrom::Start(0)).map_err(io)?;
            Ok((file, digest, size, stat))
        })
        .await;
        if freeze {
            group.thaw().map_err(runtime_error)?;
        }
        let (file, digest, size, stat) = packed?;
        if stat.empty {
            return Ok(CommitReply { layer: None, empty: true });
        }
        let lease = (!request.lease.is_empty()).then_some(request.lease.as_str());
        let failed = |e: distribution::Error| Error::new(e.kind(), e.to_string());
        if self.store.has(&digest, lease).await.map_err(failed)?.is_none() {
            let body = distribution::Body::from(tokio::fs::File::from_std(file));
            self.store.put(&digest, size, body, lease).await.map_err(failed)?;
        }
        let blob = Descriptor { media_type: LAYER.to_owned(), digest: digest.to_string(), size };
        let layer = Layer { diff_id: digest.to_string(), blob: Some(blob), content_bytes: stat.content_bytes };
        Ok(CommitReply { layer: Some(layer), empty: false })
    }

    /// Packs a tree while it is sent; nothing is kept on the way.
    pub async fn export(&self, request: ContainerExport) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        let tree = self.tree(&container, false).await?;
        let writer = crate::attach::dial(request.ticket).await?.writer;
        let rootfs = container.dir.join("rootfs");
        crate::archive::send(writer, move |out| {
            let exported = snapshots::export(&rootfs, out).map_err(snapshot);
            drop(tree);
            exported
        })
        .await?;
        Ok(Empty {})
    }

    pub async fn update(&self, request: proto::ContainerUpdate) -> Result<Vec<proto::NodeEvent>, Error> {
        let container = self.container(&request.id)?;
        let _busy = container.busy.lock().await;
        if let Some(limits) = request.resources {
            if container.is_running() {
                let group = runtime::cgroup::Cgroup::new(&self.cgroup(&request.id));
                group.update(&crate::spec::resources(limits.clone())).map_err(runtime_error)?;
            }
            lock(&container.spec).resources = Some(limits);
        }
        if request.restart.is_some() {
            lock(&container.spec).restart = request.restart;
        }
        write(&container.dir.join("spec.pb"), &container.spec().encode_to_vec())?;
        Ok(vec![self.tell(&container, "update", &[])])
    }

    /// Mounts the root of a container that does not run; tells whether it did.
    pub async fn mount_quiet(&self, container: &Arc<Container>, layers: Vec<model::DiffId>) -> Result<bool, Error> {
        if container.is_running() {
            return Ok(false);
        }
        let (snapshots, dir) = (self.snapshots.clone(), container.dir.clone());
        blocking(move || {
            let (upper, work, target) = (dir.join("upper"), dir.join("work"), dir.join("rootfs"));
            snapshots::unmount(&target).map_err(snapshot)?;
            let spec = MountSpec { layers: &layers, upper: &upper, work: &work, target: &target };
            snapshots.mount(&spec).map_err(snapshot)?;
            Ok(true)
        })
        .await
    }

    pub async fn sizes(&self, request: SizeRequest) -> Result<SizeReply, Error> {
        let known: Vec<_> = request.ids.iter().filter_map(|id| self.container(id).ok()).collect();
        blocking(move || {
            let size = |container: Arc<Container>| {
                let bytes = snapshots::upper_size(&container.dir.join("upper")).map_err(snapshot)?;
                Ok(ContainerSize { id: container.status().id, rw_bytes: i64::try_from(bytes).unwrap_or(i64::MAX) })
            };
            Ok(SizeReply { sizes: known.into_iter().map(size).collect::<Result<_, Error>>()? })
        })
        .await
    }

    pub async fn forget(&self, request: proto::ForgetLayers) -> Result<Empty, Error> {
        let spec = proto::ContainerSpec {
            layers: request.diff_ids.into_iter().map(|diff_id| Layer { diff_id, ..Layer::default() }).collect(),
            ..proto::ContainerSpec::default()
        };
        let (ids, snapshots) = (diff_ids(&spec)?, self.snapshots.clone());
        blocking(move || snapshots.remove_unheld(&ids).map(|_| Empty {}).map_err(snapshot)).await
    }

    /// The layers that are unpacked on this machine.
    pub async fn storage(&self, ask: proto::StorageAsk) -> Result<proto::MachineStorage, Error> {
        let snapshots = self.snapshots.clone();
        blocking(move || {
            let sum = snapshots.unpacking().map_err(snapshot)?;
            let layers = proto::KeptFiles { count: sum.layers, bytes: sum.bytes, held_bytes: sum.held_bytes };
            let machine = snapshots.place().map_err(snapshot)?;
            let layer = match ask.diff_id.parse() {
                Ok(diff_id) => snapshots.copy(&diff_id).map_err(snapshot)?,
                Err(_) => None,
            };
            let layer = layer.map(|(bytes, holders)| proto::LayerCopy { bytes, holders });
            Ok(proto::MachineStorage { machine, layers: Some(layers), layer, ..Default::default() })
        })
        .await
    }

    /// Unpacks in the background.
    pub fn prefetch(self: &Arc<Self>, request: proto::Prefetch) -> Result<Empty, Error> {
        let node = self.clone();
        tokio::spawn(async move {
            let spec = proto::ContainerSpec { layers: request.layers, ..proto::ContainerSpec::default() };
            if let Err(error) = node.ensure_layers(&spec).await {
                tracing::info!(%error, "layers could not be made ready ahead");
            }
        });
        Ok(Empty {})
    }
}
