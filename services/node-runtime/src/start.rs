//! Brings a container up, and takes down what it used when it has ended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::Error;
use futures::future::BoxFuture;
use model::{DiffId, Digest};
use proto::{ContainerSpec, ContainerState, NetworkEndpoint, NodeEvent};
use runtime::bundle::{self, Namespace};
use runtime::shim::{self, ExitStatus, Handle, LogConfig, ShimConfig, Spawn};

use crate::containers::Container;
use crate::from_store::FromStore;
use crate::node::{Node, lock};

pub fn diff_ids(spec: &ContainerSpec) -> Result<Vec<DiffId>, Error> {
    spec.layers.iter().map(|l| l.diff_id.parse().map_err(|e| Error::invalid(format!("diff id: {e}")))).collect()
}

pub fn snapshot(error: snapshots::Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

pub fn runtime_error(error: runtime::Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

impl Node {
    pub fn cgroup(&self, id: &str) -> String {
        format!("/boxyard-{}/{id}", self.instance)
    }

    pub fn shim_config(&self, container: &Container) -> ShimConfig {
        let spec = container.spec();
        let log = spec.log.clone().unwrap_or_default();
        ShimConfig {
            runtime_binary: self.runtime_binary.clone(),
            runtime_root: self.machine_dir.join("runtime"),
            id: spec.id.clone(),
            bundle: container.dir.join("bundle"),
            tty: spec.tty,
            open_stdin: spec.open_stdin,
            stdin_once: spec.stdin_once,
            log: (log.driver != "none").then(|| LogConfig {
                path: container.dir.join("container.log"),
                max_bytes: if log.max_bytes == 0 { 10 << 20 } else { log.max_bytes },
                max_files: if log.max_files == 0 { 3 } else { log.max_files },
            }),
            watch: false,
            deadline_ms: 0,
            exec: None,
            cgroup_path: self.cgroup(&spec.id),
            tty_size: (0, 0),
        }
    }

    /// The shim of a container that is to start, so that clients can join before it does.
    pub async fn ensure_shim(&self, container: &Container) -> Result<Arc<Handle>, Error> {
        if let Some(shim) = container.shim() {
            return Ok(shim);
        }
        let spawn = Spawn {
            shim_binary: self.shim_binary.clone(),
            dir: container.dir.join("shim"),
            config: self.shim_config(container),
        };
        let shim = Arc::new(spawn.spawn().await.map_err(runtime_error)?);
        *lock(&container.shim) = Some(shim.clone());
        Ok(shim)
    }

    pub async fn start(self: &Arc<Self>, id: &str) -> Result<Vec<NodeEvent>, Error> {
        let container = self.container(id)?;
        let _busy = container.busy.lock().await;
        // It may have gone while this waited.
        let container = self.container(id)?;
        if container.is_running() {
            return Err(Error::new(model::ErrorKind::NotModified, "container is already running"));
        }
        container.set_stopped(false);
        *lock(&container.restart_wait) = std::time::Duration::ZERO;
        Ok(vec![self.start_held(&container, 0).await?])
    }

    /// A start by the container's policy. Boxed: a start leads to a watch, and that to a restart.
    pub fn start_again(self: &Arc<Self>, container: &Arc<Container>) -> BoxFuture<'static, Result<(), Error>> {
        let (node, container) = (self.clone(), container.clone());
        Box::pin(async move {
            let _busy = container.busy.lock().await;
            let status = container.status();
            let wanted = status.state() == ContainerState::Restarting && !container.stopped.load(Ordering::SeqCst);
            if wanted && node.container(&status.id).is_ok() {
                node.start_held(&container, status.restart_count + 1).await?;
            }
            Ok(())
        })
    }

    /// The caller holds the container's lock.
    async fn start_held(self: &Arc<Self>, container: &Arc<Container>, restarts: u32) -> Result<NodeEvent, Error> {
        let _resources = container.resources.lock().await;
        self.forget_execs(container);
        let result = self.bring_up(container, restarts).await;
        if let Err(error) = result {
            let shim = lock(&container.shim).take();
            if let Some(shim) = shim {
                match shim::exit_status(shim.dir()) {
                    Some(_) => shim.wait_gone().await,
                    // It never came to the start.
                    None => crate::stop::retire(&shim).await,
                }
            }
            container.change(|status| {
                status.set_state(match status.started_at_ns {
                    0 => ContainerState::Created,
                    _ => ContainerState::Exited,
                });
                status.exit_code = exit_code(error.message());
                status.error = error.message().to_owned();
                status.pid = 0;
            })?;
            self.tell(container, "", &[]);
            self.take_down(&container.status().id, &container.dir).await;
            return Err(error);
        }
        let event = self.tell(container, "start", &[]);
        self.watch(container);
        Ok(event)
    }

    async fn bring_up(self: &Arc<Self>, container: &Arc<Container>, restarts: u32) -> Result<(), Error> {
        let spec = container.spec();
        let rootfs = container.dir.join("rootfs");
        let (layers, network, shim) = tokio::join!(self.stack(&spec), self.connect(&spec), self.ensure_shim(container));
        let (layers, (namespace, endpoint), shim) = (layers?, network?, shim?);
        self.mount_quiet(container, layers).await?;
        let (node, filled, root) = (self.clone(), spec.clone(), rootfs.clone());
        crate::commit::blocking(move || node.fill_volumes(&filled, &root)).await?;
        let mounts = self.mounts(container, &spec, endpoint.as_ref())?;
        let bundle_spec = self.bundle_spec(&spec, rootfs, mounts, namespace)?;
        bundle::write(&container.dir.join("bundle"), &bundle_spec).map_err(runtime_error)?;
        let started = shim.start().await.map_err(runtime_error)?;
        container.change(|status| {
            status.set_state(ContainerState::Running);
            status.pid = started.pid;
            status.started_at_ns = started.started_at_ns;
            status.finished_at_ns = 0;
            status.exit_code = 0;
            status.restart_count = restarts;
            status.error.clear();
            status.oom_killed = false;
            status.network = endpoint;
            status.health = crate::health::at_start(&spec, status.health.take());
        })
    }

    /// Layers that are not unpacked here come from the layer store, all at once.
    pub async fn ensure_layers(&self, spec: &ContainerSpec) -> Result<Vec<DiffId>, Error> {
        let ids = diff_ids(spec)?;
        let mut unpacking = tokio::task::JoinSet::new();
        for (layer, id) in spec.layers.iter().zip(&ids) {
            if self.snapshots.has_layer(id) {
                continue;
            }
            let blob = layer.blob.as_ref().map_or(layer.diff_id.as_str(), |blob| blob.digest.as_str());
            let digest: Digest = blob.parse().map_err(|e| Error::invalid(format!("layer digest: {e}")))?;
            let (store, snapshots, id) = (self.store.clone(), self.snapshots.clone(), id.clone());
            let runtime = tokio::runtime::Handle::current();
            // Who waits for another container, or a build-worker, to unpack the same moves nothing.
            let open = move || runtime.block_on(store.get_to_reader(&digest)).map_err(std::io::Error::other);
            unpacking.spawn_blocking(move || {
                let mut blob = FromStore::new(distribution::when_read(open));
                let applied = snapshots.apply(&id, &mut blob);
                blob.failure.map_or_else(|| applied.map_err(snapshot), Err)
            });
        }
        while let Some(done) = unpacking.join_next().await {
            done.map_err(|e| Error::internal(e.to_string()))??;
        }
        Ok(ids)
    }

    /// The image's layers and the init layer, as they lie under a container.
    pub async fn stack(&self, spec: &ContainerSpec) -> Result<Vec<DiffId>, Error> {
        let mut layers = self.ensure_layers(spec).await?;
        layers.push(self.init_layer.clone());
        Ok(layers)
    }

    async fn connect(&self, spec: &ContainerSpec) -> Result<(Namespace, Option<NetworkEndpoint>), Error> {
        match spec.network_mode.as_str() {
            "host" => return Ok((Namespace::Host, None)),
            "none" => return Ok((Namespace::Private, None)),
            _ if spec.network_disabled => return Ok((Namespace::Private, None)),
            _ => {}
        }
        if let Some(other) = spec.network_mode.strip_prefix("container:") {
            let other = self.container(other)?.status();
            if other.pid == 0 {
                return Err(Error::conflict(format!("cannot join network of a non running container: {}", other.id)));
            }
            return Ok((Namespace::Path(format!("/proc/{}/ns/net", other.pid).into()), None));
        }
        let failed = |e: network::Error| Error::new(e.kind(), e.to_string());
        let mut end = self.network.attach(&spec.id).await.map_err(failed)?;
        if !spec.mac_address.is_empty() {
            self.network.set_mac(&mut end, mac(&spec.mac_address)?).await.map_err(failed)?;
        }
        let endpoint = NetworkEndpoint {
            network_id: self.network_id(),
            network_name: "bridge".to_owned(),
            endpoint_id: Digest::of(format!("{}{}", spec.id, end.ip).as_bytes()).hex().to_owned(),
            ip_address: end.ip.to_string(),
            ip_prefix_len: end.prefix.into(),
            gateway: end.gateway.to_string(),
            mac_address: end.mac,
            sandbox_id: Digest::of(spec.id.as_bytes()).hex().to_owned(),
            sandbox_key: end.netns_path.display().to_string(),
        };
        Ok((Namespace::Path(end.netns_path), Some(endpoint)))
    }

    /// Waits for the end in the background.
    pub fn watch(self: &Arc<Self>, container: &Arc<Container>) {
        self.look_after(container);
        let (node, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let Some(shim) = container.shim() else { return };
            let end = match shim.wait_exit().await {
                Ok(end) => end,
                // The shim was killed: its container must not live on unseen.
                Err(_) => node.clear_dead(&container, 137).await,
            };
            node.ended(&container, &end).await;
        });
    }

    /// Clears what a shim left that died, and answers how its container ended: as recorded, else with `code`.
    pub async fn clear_dead(&self, container: &Container, code: i32) -> ExitStatus {
        let dir = container.dir.join("shim");
        let recorded = shim::exit_status(&dir);
        if let Err(error) = shim::clean_up(&self.shim_binary, &dir).await {
            tracing::warn!(%error, "what a dead shim left could not be cleared");
        }
        tracing::warn!(container_id = %container.status().id, "a container's shim has died");
        let finished_at_ns = runtime::wire::now_ns();
        recorded.unwrap_or_else(|| ExitStatus {
            code,
            oom: false,
            expired: false,
            finished_at_ns,
            error: String::new(),
        })
    }

    /// The end is told first; what the container used goes afterwards.
    pub async fn ended(self: &Arc<Self>, container: &Arc<Container>, end: &ExitStatus) {
        let _busy = container.busy.lock().await;
        let resources = container.resources.clone().lock_owned().await;
        let (policy, restarts) = (container.spec().restart.unwrap_or_default(), container.status().restart_count);
        let again = !container.stopped.load(Ordering::SeqCst) && crate::policy::wants(&policy, end.code, restarts);
        let changed = container.change(|status| {
            status.set_state(if again { ContainerState::Restarting } else { ContainerState::Exited });
            status.exit_code = end.code;
            status.oom_killed = end.oom;
            status.finished_at_ns = end.finished_at_ns;
            status.pid = 0;
            crate::health::at_end(status);
        });
        if let Err(error) = changed {
            tracing::error!(%error, container_id = %container.status().id, "an end could not be recorded");
        }
        if end.oom {
            self.tell(container, "oom", &[]);
        }
        let seconds = (end.finished_at_ns - container.status().started_at_ns).max(0) / 1_000_000_000;
        self.tell(container, "die", &[("execDuration", seconds.to_string()), ("exitCode", end.code.to_string())]);
        let shim = lock(&container.shim).take();
        let (node, container) = (self.clone(), container.clone());
        self.tasks.spawn(async move {
            if let Some(shim) = shim {
                shim.wait_gone().await;
            }
            node.take_down(&container.status().id, &container.dir).await;
            drop(resources);
            if again {
                node.restart_later(&container);
            }
        });
    }

    /// Root mount and network of a container, whose folder `dir` is. May be repeated.
    pub async fn take_down(&self, id: &str, dir: &Path) {
        let (rootfs, shm) = (dir.join("rootfs"), dir.join(crate::spec::SHM));
        // It waits for the upper file system to be written.
        let unmounted = crate::commit::blocking(move || {
            snapshots::unmount(&rootfs).map_err(snapshot)?;
            snapshots::unmount(&shm).map_err(snapshot)
        });
        let (unmounted, detached) = tokio::join!(unmounted, self.network.detach(id));
        if let Err(error) = unmounted {
            tracing::warn!(%error, container_id = %id, "the root could not be unmounted");
        }
        if let Err(error) = detached {
            tracing::warn!(%error, container_id = %id, "the network could not be taken down");
        }
    }
}

fn mac(text: &str) -> Result<[u8; 6], Error> {
    let invalid = || Error::invalid(format!("invalid MAC address: {text}"));
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| u8::from_str_radix(part, 16).map_err(|_| invalid()))
        .collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| invalid())
}

/// Docker's exit code of a container that did not start.
fn exit_code(message: &str) -> i32 {
    if !message.contains("exec: ") {
        return 128;
    }
    if message.contains("not found in $PATH") || message.contains("no such file or directory") { 127 } else { 126 }
}
