//! Brings a container up, and takes down what it used when it has ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bus::Error;
use model::{DiffId, Digest};
use proto::{ContainerSpec, ContainerState, NetworkEndpoint, NodeEvent};
use runtime::bundle::{self, BundleSpec, Mount, Namespace, ProcessSpec, Resources, Seccomp};
use runtime::shim::{ExitStatus, Handle, LogConfig, ShimConfig, Spawn};

use crate::containers::Container;
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
        if container.is_running() {
            return Err(Error::new(model::ErrorKind::NotModified, "container is already running"));
        }
        container.stopped.store(false, Ordering::SeqCst);
        let result = self.bring_up(&container).await;
        if let Err(error) = result {
            *lock(&container.shim) = None;
            let code = if error.message().contains("executable file") { 127 } else { 128 };
            container.change(|status| {
                status.set_state(if status.started_at_ns == 0 {
                    ContainerState::Created
                } else {
                    ContainerState::Exited
                });
                status.exit_code = code;
                status.error = error.message().to_owned();
                status.pid = 0;
            })?;
            self.tell(&container, "", &[]);
            self.take_down(&container).await;
            return Err(error);
        }
        let event = self.tell(&container, "start", &[]);
        self.watch(&container);
        Ok(vec![event])
    }

    async fn bring_up(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Error> {
        let spec = container.spec();
        let rootfs = container.dir.join("rootfs");
        let (layers, network, shim) = tokio::join!(self.stack(&spec), self.connect(&spec), self.ensure_shim(container));
        let (layers, (namespace, endpoint), shim) = (layers?, network?, shim?);
        self.mount_quiet(container, layers).await?;
        let (node, filled, root) = (self.clone(), spec.clone(), rootfs.clone());
        crate::commit::blocking(move || node.fill_volumes(&filled, &root)).await?;
        let mounts = self.mounts(container, &spec, endpoint.as_ref())?;
        let bundle_spec = self.bundle_spec(&spec, rootfs, mounts, namespace);
        bundle::write(&container.dir.join("bundle"), &bundle_spec).map_err(runtime_error)?;
        let started = shim.start().await.map_err(runtime_error)?;
        container.change(|status| {
            status.set_state(ContainerState::Running);
            status.pid = started.pid;
            status.started_at_ns = started.started_at_ns;
            status.finished_at_ns = 0;
            status.exit_code = 0;
            status.error.clear();
            status.oom_killed = false;
            status.network = endpoint;
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
            unpacking.spawn(async move {
                let tar = store.get_to_reader(&digest).await.map_err(|e| Error::new(e.kind(), e.to_string()))?;
                tokio::task::spawn_blocking(move || snapshots.apply(&id, tar))
                    .await
                    .map_err(|e| Error::internal(e.to_string()))?
                    .map_err(snapshot)
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
        let end = self.network.attach(&spec.id).await.map_err(|e| Error::new(e.kind(), e.to_string()))?;
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

    fn mounts(
        &self,
        container: &Container,
        spec: &ContainerSpec,
        endpoint: Option<&NetworkEndpoint>,
    ) -> Result<Vec<Mount>, Error> {
        let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
        for line in &spec.extra_hosts {
            if let Some((name, ip)) = line.split_once(':') {
                hosts += &format!("{ip}\t{name}\n");
            }
        }
        if let Some(endpoint) = endpoint {
            hosts += &format!("{}\t{}\n", endpoint.ip_address, spec.hostname);
        }
        let resolv = if spec.dns.is_empty() {
            std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
        } else {
            spec.dns.iter().map(|ip| format!("nameserver {ip}\n")).collect()
        };
        let mut mounts = Vec::new();
        for (name, text) in [("hosts", hosts), ("hostname", format!("{}\n", spec.hostname)), ("resolv.conf", resolv)] {
            let path = container.dir.join(name);
            std::fs::write(&path, text).map_err(|e| Error::internal(format!("writing {}: {e}", path.display())))?;
            mounts.push(bind(path, format!("/etc/{name}"), false));
        }
        for mount in &spec.mounts {
            use proto::mount::Type;
            let source = match mount.r#type() {
                Type::Bind => {
                    let source = PathBuf::from(&mount.source);
                    if !source.exists() {
                        if !mount.create_source {
                            return Err(Error::invalid(format!("bind source path does not exist: {}", mount.source)));
                        }
                        std::fs::create_dir_all(&source).map_err(|e| Error::internal(e.to_string()))?;
                    }
                    source
                }
                Type::Volume => self.volume_data(&mount.source)?,
                Type::Tmpfs => PathBuf::from("tmpfs"),
            };
            let mut made = bind(source, mount.target.clone(), mount.read_only);
            made.propagation = mount.propagation.clone();
            if mount.r#type() == Type::Tmpfs {
                made.kind = "tmpfs".to_owned();
                made.options = mount.options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
            }
            mounts.push(made);
        }
        Ok(mounts)
    }

    fn bundle_spec(&self, spec: &ContainerSpec, rootfs: PathBuf, mounts: Vec<Mount>, network: Namespace) -> BundleSpec {
        let limits = spec.resources.clone().unwrap_or_default();
        let host = |mode: &str| if mode == "host" { Namespace::Host } else { Namespace::Private };
        let rlimits = limits.ulimits.iter().map(|limit| bundle::Rlimit {
            name: limit.name.clone(),
            soft: limit.soft,
            hard: limit.hard,
        });
        let devices = spec.devices.iter().map(|device| bundle::Device {
            host_path: PathBuf::from(&device.host_path),
            container_path: device.container_path.clone(),
            permissions: device.permissions.clone(),
        });
        BundleSpec {
            rootfs,
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            process: ProcessSpec {
                args: spec.args.clone(),
                env: spec.env.clone(),
                cwd: spec.working_dir.clone(),
                user: spec.user.clone(),
                group_add: spec.group_add.clone(),
                tty: spec.tty,
                cap_add: spec.cap_add.clone(),
                cap_drop: spec.cap_drop.clone(),
                no_new_privileges: spec.security_opt.iter().any(|o| o.starts_with("no-new-privileges")),
                rlimits: rlimits.collect(),
                oom_score_adj: spec.oom_score_adj.and_then(|adj| adj.try_into().ok()),
            },
            mounts,
            privileged: spec.privileged,
            readonly_rootfs: spec.readonly_rootfs,
            init: spec.init,
            resources: resources(limits),
            sysctls: spec.sysctls.clone().into_iter().collect(),
            network,
            ipc: host(&spec.ipc_mode),
            pid: host(&spec.pid_mode),
            uts: host(&spec.uts_mode),
            shm_bytes: spec.shm_bytes,
            devices: devices.collect(),
            masked_paths: spec.masked_paths_set.then(|| spec.masked_paths.clone()),
            readonly_paths: spec.readonly_paths_set.then(|| spec.readonly_paths.clone()),
            seccomp: match spec.security_opt.iter().any(|o| o == "seccomp=unconfined") {
                true => Seccomp::Unconfined,
                false => Seccomp::Docker,
            },
            cgroup_path: self.cgroup(&spec.id),
            ..BundleSpec::default()
        }
    }

    /// Waits for the end in the background.
    pub fn watch(self: &Arc<Self>, container: &Arc<Container>) {
        let (node, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let Some(shim) = container.shim() else { return };
            let end = shim.wait_exit().await.unwrap_or_else(|_| ExitStatus {
                code: 137,
                oom: false,
                finished_at_ns: runtime::wire::now_ns(),
                error: String::new(),
            });
            node.ended(&container, &end).await;
        });
    }

    /// The end is told first; what the container used goes afterwards.
    pub async fn ended(self: &Arc<Self>, container: &Arc<Container>, end: &ExitStatus) {
        let _busy = container.busy.lock().await;
        let changed = container.change(|status| {
            status.set_state(ContainerState::Exited);
            status.exit_code = end.code;
            status.oom_killed = end.oom;
            status.finished_at_ns = end.finished_at_ns;
            status.pid = 0;
        });
        if let Err(error) = changed {
            tracing::error!(%error, container_id = %container.status().id, "an end could not be recorded");
        }
        if end.oom {
            self.tell(container, "oom", &[]);
        }
        self.tell(container, "die", &[("exitCode", end.code.to_string())]);
        let shim = lock(&container.shim).take();
        if let Some(shim) = shim {
            shim.wait_gone().await;
        }
        self.take_down(container).await;
        self.restart_if_wanted(container, end.code);
    }

    pub async fn take_down(&self, container: &Container) {
        let id = container.status().id;
        if let Err(error) = snapshots::unmount(&container.dir.join("rootfs")) {
            tracing::warn!(%error, container_id = %id, "the root could not be unmounted");
        }
        if let Err(error) = self.network.detach(&id).await {
            tracing::warn!(%error, container_id = %id, "the network could not be taken down");
        }
    }

    fn restart_if_wanted(self: &Arc<Self>, container: &Arc<Container>, code: i32) {
        let policy = container.spec().restart.unwrap_or_default();
        let count = container.status().restart_count;
        let wanted = match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => code != 0 && (policy.maximum_retry_count == 0 || count < policy.maximum_retry_count),
            _ => false,
        };
        if !wanted || container.stopped.load(Ordering::SeqCst) {
            return;
        }
        let (node, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100 << count.min(9))).await;
            if container.stopped.load(Ordering::SeqCst) || container.is_running() {
                return;
            }
            let _ = container.change(|status| status.restart_count += 1);
            if let Err(error) = restart(&node, &container).await {
                tracing::warn!(%error, "a restart failed");
            }
        });
    }
}

/// Boxed: a start leads to a watch, and that to a restart.
fn restart(node: &Arc<Node>, container: &Arc<Container>) -> futures::future::BoxFuture<'static, Result<(), Error>> {
    let (node, id) = (node.clone(), container.status().id);
    Box::pin(async move { node.start(&id).await.map(drop) })
}

fn bind(source: impl AsRef<Path>, target: String, read_only: bool) -> Mount {
    let source = source.as_ref().to_owned();
    Mount { kind: "bind".to_owned(), source, target, read_only, propagation: String::new(), options: Vec::new() }
}

pub fn resources(limits: proto::Resources) -> Resources {
    Resources {
        memory_bytes: limits.memory_bytes,
        memory_reservation_bytes: limits.memory_reservation_bytes,
        memory_swap_bytes: limits.memory_swap_bytes,
        memory_swappiness: limits.memory_swappiness,
        oom_kill_disable: limits.oom_kill_disable,
        nano_cpus: limits.nano_cpus,
        cpu_shares: limits.cpu_shares,
        cpu_period_us: limits.cpu_period_us,
        cpu_quota_us: limits.cpu_quota_us,
        cpuset_cpus: limits.cpuset_cpus,
        cpuset_mems: limits.cpuset_mems,
        pids_limit: limits.pids_limit,
        blkio_weight: u16::try_from(limits.blkio_weight).unwrap_or(0),
        ..Resources::default()
    }
}
