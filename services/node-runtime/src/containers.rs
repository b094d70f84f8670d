use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::Error;
use prost::Message;
use proto::{ContainerSpec, ContainerState, ContainerStatus, NodeEvent};
use runtime::shim::Handle;
use tokio::sync::Notify;

use crate::commit::blocking;
use crate::node::{Node, lock};
use crate::start::snapshot;

/// A container. Its folder holds spec.pb, status.pb, the overlay's upper, work and rootfs, the shim's files and the log.
pub struct Container {
    pub dir: PathBuf,
    pub spec: Mutex<ContainerSpec>,
    status: Mutex<ContainerStatus>,
    /// One change at a time.
    pub busy: Arc<tokio::sync::Mutex<()>>,
    /// Root mount and network, which are taken down after an end was told. Taken after `busy`.
    pub resources: Arc<tokio::sync::Mutex<()>>,
    changed: Notify,
    pub shim: Mutex<Option<Arc<Handle>>>,
    /// A person stopped it: no restart. A file in its folder says so too.
    pub stopped: AtomicBool,
    /// Before the latest restart by its policy.
    pub restart_wait: Mutex<Duration>,
}

const STOPPED_FILE: &str = "stopped";

impl Container {
    pub fn new(dir: PathBuf, spec: ContainerSpec, status: ContainerStatus) -> Self {
        Self {
            dir,
            spec: Mutex::new(spec),
            status: Mutex::new(status),
            busy: Arc::default(),
            resources: Arc::default(),
            changed: Notify::new(),
            shim: Mutex::default(),
            stopped: false.into(),
            restart_wait: Mutex::default(),
        }
    }

    pub fn load(dir: &Path) -> std::io::Result<Self> {
        let spec = ContainerSpec::decode(std::fs::read(dir.join("spec.pb"))?.as_slice())?;
        let status = ContainerStatus::decode(std::fs::read(dir.join("status.pb"))?.as_slice())?;
        // A crash of the machine can leave a file empty, which decodes too.
        if dir.file_name().is_none_or(|name| name != spec.id.as_str() || name != status.id.as_str()) {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "its record is damaged"));
        }
        let container = Self::new(dir.to_owned(), spec, status);
        container.stopped.store(dir.join(STOPPED_FILE).exists(), Ordering::SeqCst);
        Ok(container)
    }

    pub fn spec(&self) -> ContainerSpec {
        lock(&self.spec).clone()
    }

    pub fn status(&self) -> ContainerStatus {
        lock(&self.status).clone()
    }

    pub fn is_running(&self) -> bool {
        matches!(self.status().state(), ContainerState::Running | ContainerState::Paused)
    }

    pub fn shim(&self) -> Option<Arc<Handle>> {
        lock(&self.shim).clone()
    }

    pub fn set_stopped(&self, stopped: bool) {
        if self.stopped.swap(stopped, Ordering::SeqCst) == stopped {
            return;
        }
        let file = self.dir.join(STOPPED_FILE);
        let written = if stopped { std::fs::write(file, "") } else { std::fs::remove_file(file) };
        if let Err(error) = written {
            tracing::warn!(%error, "that a person stopped a container could not be recorded");
        }
    }

    /// Changes the status, on disk too.
    pub fn change(&self, change: impl FnOnce(&mut ContainerStatus)) -> Result<(), Error> {
        let mut status = lock(&self.status);
        change(&mut status);
        let written = write(&self.dir.join("status.pb"), &status.encode_to_vec());
        self.changed.notify_waiters();
        written
    }

    /// Waits until it does not run; false when that takes longer than `limit`.
    pub async fn stands(&self, limit: Option<Duration>) -> bool {
        let standing = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // From here on a change is not missed.
                changed.as_mut().enable();
                if !self.is_running() {
                    return;
                }
                changed.await;
            }
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, standing).await.is_ok(),
            None => {
                standing.await;
                true
            }
        }
    }
}

pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let draft = path.with_extension("new");
    std::fs::write(&draft, bytes)
        .and_then(|()| std::fs::rename(&draft, path))
        .map_err(|e| Error::internal(format!("writing {}: {e}", path.display())))
}

impl Node {
    pub async fn create(&self, mut spec: ContainerSpec) -> Result<Vec<NodeEvent>, Error> {
        let id: model::ContainerId = spec.id.parse().map_err(|e| Error::invalid(format!("container id: {e}")))?;
        let dir = self.machine_dir.join("containers").join(id.to_string());
        if lock(&self.containers).contains_key(&spec.id) {
            return Err(Error::new(model::ErrorKind::AlreadyExists, format!("container {id} exists")));
        }
        for folder in ["upper", "work", "rootfs", "shim", "bundle", "execs"] {
            std::fs::create_dir_all(dir.join(folder))
                .map_err(|e| Error::internal(format!("making {}: {e}", dir.display())))?;
        }
        let path = |name: &str| dir.join(name).display().to_string();
        let mounts = self.claim_volumes(&mut spec)?;
        let status = ContainerStatus {
            mounts,
            id: spec.id.clone(),
            log_path: path("container.log"),
            hosts_path: path("hosts"),
            hostname_path: path("hostname"),
            resolv_conf_path: path("resolv.conf"),
            ..ContainerStatus::default()
        };
        // Before there is a record of it: what is recorded is held.
        let (snapshots, layers, owner) = (self.snapshots.clone(), crate::start::diff_ids(&spec)?, spec.id.clone());
        blocking(move || snapshots.hold(&layers, &owner).map_err(snapshot)).await?;
        write(&dir.join("spec.pb"), &spec.encode_to_vec())?;
        write(&dir.join("status.pb"), &status.encode_to_vec())?;
        let container = Arc::new(Container::new(dir, spec, status));
        lock(&self.containers).insert(id.to_string(), container.clone());
        Ok(vec![self.tell(&container, "create", &[])])
    }
}
