//! A container's spec in the words of the bundle, and the files that are mounted into it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::Error;
use nix::mount::MsFlags;
use proto::{ContainerSpec, NetworkEndpoint};
use runtime::bundle::{self, BundleSpec, Mount, Namespace, ProcessSpec, Resources, Seccomp};

use crate::containers::Container;
use crate::etc;
use crate::node::Node;

/// Shared memory that others may join, in the container's folder.
pub const SHM: &str = "shm";

impl Node {
    /// The container whose network, and so whose names and addresses, this one uses.
    fn network_of(&self, spec: &ContainerSpec) -> Result<Option<Arc<Container>>, Error> {
        spec.network_mode.strip_prefix("container:").map(|other| self.container(other)).transpose()
    }

    pub fn mounts(
        &self,
        container: &Container,
        spec: &ContainerSpec,
        endpoint: Option<&NetworkEndpoint>,
    ) -> Result<Vec<Mount>, Error> {
        let mut mounts = Vec::new();
        let other = self.network_of(spec)?;
        let dir = other.as_ref().map_or(&container.dir, |other| &other.dir);
        if other.is_none() {
            let host = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
            let texts = [
                ("hosts", etc::hosts(spec, endpoint, self.network.gateway(), &host("/etc/hosts"))),
                ("hostname", format!("{}\n", spec.hostname)),
                ("resolv.conf", etc::resolv_conf(spec, &host("/etc/resolv.conf"))),
            ];
            for (name, text) in texts {
                let path = dir.join(name);
                std::fs::write(&path, text).map_err(|e| Error::internal(format!("writing {}: {e}", path.display())))?;
            }
        }
        for name in ["hosts", "hostname", "resolv.conf"] {
            mounts.push(bind(dir.join(name), format!("/etc/{name}"), false));
        }
        if let Some(shm) = self.shared_memory(container, spec)? {
            mounts.push(bind(shm, "/dev/shm".to_owned(), false));
        }
        for mount in &spec.mounts {
            use proto::mount::Type;
            let source = match mount.r#type() {
                Type::Bind => {
                    let source = PathBuf::from(&mount.source);
                    if !source.exists() {
                        if !mount.create_source {
                            return Err(missing_source(&mount.source));
                        }
                        std::fs::create_dir_all(&source).map_err(|e| Error::internal(e.to_string()))?;
                    }
                    source
                }
                Type::Volume => self.volume_data(&mount.source)?,
                Type::Tmpfs => PathBuf::from("tmpfs"),
            };
            let mut made = bind(source, mount.target.clone(), self.is_read_only(mount));
            made.propagation = mount.propagation.clone();
            if mount.r#type() == Type::Tmpfs {
                made.kind = "tmpfs".to_owned();
                made.options = mount.options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
            }
            mounts.push(made);
        }
        Ok(mounts)
    }

    /// Of a container whose IPC others may join, it lies on the machine; it is taken down with the root.
    fn shared_memory(&self, container: &Container, spec: &ContainerSpec) -> Result<Option<PathBuf>, Error> {
        if spec.ipc_mode == "shareable" {
            let place = container.dir.join(SHM);
            std::fs::create_dir_all(&place).map_err(crate::commit::io)?;
            snapshots::unmount(&place).map_err(crate::start::snapshot)?;
            let options = format!("mode=1777,size={}", spec.shm_bytes);
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
            nix::mount::mount(Some("shm"), &place, Some("tmpfs"), flags, Some(options.as_str()))
                .map_err(|e| Error::internal(format!("mounting shared memory: {e}")))?;
            return Ok(Some(place));
        }
        let Some(other) = spec.ipc_mode.strip_prefix("container:") else { return Ok(None) };
        let other = self.container(other)?;
        if other.spec().ipc_mode != "shareable" {
            return Err(Error::invalid(format!(
                "can't join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                other.spec().id
            )));
        }
        Ok(Some(other.dir.join(SHM)))
    }

    fn namespace(&self, mode: &str, kind: &str) -> Result<Namespace, Error> {
        if mode == "host" {
            return Ok(Namespace::Host);
        }
        let Some(other) = mode.strip_prefix("container:") else { return Ok(Namespace::Private) };
        let other = self.container(other)?.status();
        if other.pid == 0 {
            return Err(Error::conflict(format!("cannot join {kind} of a non running container: {}", other.id)));
        }
        Ok(Namespace::Path(format!("/proc/{}/ns/{kind}", other.pid).into()))
    }

    pub fn bundle_spec(
        &self,
        spec: &ContainerSpec,
        rootfs: PathBuf,
        mounts: Vec<Mount>,
        network: Namespace,
    ) -> Result<BundleSpec, Error> {
        let limits = spec.resources.clone().unwrap_or_default();
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
        Ok(BundleSpec {
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
                no_new_privileges: spec
                    .security_opt
                    .iter()
                    .any(|o| matches!(o.as_str(), "no-new-privileges" | "no-new-privileges:true")),
                rlimits: rlimits.collect(),
                oom_score_adj: spec.oom_score_adj.and_then(|adj| adj.try_into().ok()),
                hides_hostname: false,
            },
            mounts,
            privileged: spec.privileged,
            readonly_rootfs: spec.readonly_rootfs,
            init: spec.init,
            resources: resources(limits),
            sysctls: spec.sysctls.clone().into_iter().collect(),
            network,
            ipc: self.namespace(&spec.ipc_mode, "ipc")?,
            pid: self.namespace(&spec.pid_mode, "pid")?,
            uts: self.namespace(&spec.uts_mode, "uts")?,
            cgroup: self.namespace(&spec.cgroupns_mode, "cgroup")?,
            shm_bytes: spec.shm_bytes,
            devices: devices.collect(),
            masked_paths: spec.masked_paths_set.then(|| spec.masked_paths.clone()),
            readonly_paths: spec.readonly_paths_set.then(|| spec.readonly_paths.clone()),
            seccomp: seccomp(spec)?,
            cgroup_path: self.cgroup(&spec.id),
        })
    }
}

pub fn missing_source(path: &str) -> Error {
    Error::invalid(format!("invalid mount config for type \"bind\": bind source path does not exist: {path}"))
}

fn seccomp(spec: &ContainerSpec) -> Result<Seccomp, Error> {
    let given = spec.security_opt.iter().rev().find_map(|option| option.strip_prefix("seccomp="));
    match given {
        None | Some("builtin") => Ok(Seccomp::Docker),
        Some("unconfined") => Ok(Seccomp::Unconfined),
        Some(profile) => serde_json::from_str(profile)
            .map(Seccomp::Profile)
            .map_err(|e| Error::invalid(format!("Decoding seccomp profile failed: {e}"))),
    }
}

fn bind(source: impl AsRef<Path>, target: String, read_only: bool) -> Mount {
    let source = source.as_ref().to_owned();
    Mount { kind: "bind".to_owned(), source, target, read_only, propagation: String::new(), options: Vec::new() }
}

fn rates(devices: Vec<proto::DeviceRate>) -> Vec<bundle::ThrottleDevice> {
    let rate = |device: proto::DeviceRate| bundle::ThrottleDevice { path: device.path.into(), rate: device.rate };
    devices.into_iter().map(rate).collect()
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
        device_cgroup_rules: limits.device_cgroup_rules,
        read_bps: rates(limits.read_bps),
        write_bps: rates(limits.write_bps),
        read_iops: rates(limits.read_iops),
        write_iops: rates(limits.write_iops),
    }
}
