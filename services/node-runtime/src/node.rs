use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bus::{Bus, Error};
use proto::{NodeEvent, NodeInfo};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::containers::Container;
use crate::outbox::Outbox;

/// What the handlers share.
pub struct Node {
    pub id: String,
    pub instance: String,
    pub machine_dir: PathBuf,
    pub runtime_binary: PathBuf,
    pub shim_binary: PathBuf,
    pub snapshots: Arc<snapshots::Snapshots>,
    pub store: distribution::Store,
    pub network: network::Network,
    /// Lies on every image's layers.
    pub init_layer: model::DiffId,
    pub bus: Bus,
    pub containers: Mutex<BTreeMap<String, Arc<Container>>>,
    pub execs: Mutex<HashMap<String, Arc<crate::exec::Exec>>>,
    /// Clean-ups behind an answer.
    pub tasks: TaskTracker,
    runtime_version: String,
    epoch: u64,
    seq: AtomicU64,
    outbox: Outbox,
}

impl Node {
    pub async fn open(config: &Config, bus: Bus) -> anyhow::Result<Arc<Self>> {
        std::fs::create_dir_all(config.machine.machine_dir.join("containers")).context("making the machine folder")?;
        let machine_dir = config.machine.machine_dir.canonicalize().context("opening the machine folder")?;
        crate::adopt::announce(&machine_dir, &config.id).context("naming the machine's node")?;
        let token = config.store.token()?;
        let network = network::Network::open(&config.machine.instance, &machine_dir.join("network"))
            .await
            .context("making the network")?;
        let outbox = Outbox::open(&machine_dir.join("events"), bus.clone()).context("opening the outbox")?;
        let runtime_binary = config.machine.runtime_binary().context("neither crun nor runc is on PATH")?;
        let runtime_version = version_of(&runtime_binary);
        let snapshots = Arc::new(snapshots::Snapshots::open(machine_dir.join("snapshots"))?);
        Ok(Arc::new(Self {
            init_layer: crate::init_layer::ensure(&machine_dir, &snapshots)?,
            id: config.id.clone(),
            instance: config.machine.instance.clone(),
            runtime_binary,
            shim_binary: config.machine.shim_binary(),
            snapshots,
            store: distribution::Store::new(config.store.store_url.clone(), token),
            network,
            bus,
            containers: Mutex::default(),
            execs: Mutex::default(),
            tasks: TaskTracker::new(),
            runtime_version,
            epoch: runtime::wire::now_ns() as u64,
            seq: AtomicU64::new(0),
            outbox,
            machine_dir,
        }))
    }

    pub fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        lock(&self.containers).get(id).cloned().ok_or_else(|| Error::not_found(format!("No such container: {id}")))
    }

    pub fn number(&self) -> (u64, u64) {
        (self.epoch, self.seq.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Numbers an event, and sends it on its way.
    pub fn tell(&self, container: &Container, action: &str, attributes: &[(&str, String)]) -> NodeEvent {
        self.send(container.status(), action, attributes)
    }

    /// The last event of a container.
    pub fn tell_removed(&self, container: &Container) -> NodeEvent {
        let status = proto::ContainerStatus { removed: true, ..container.status() };
        self.send(status, "destroy", &[])
    }

    fn send(&self, status: proto::ContainerStatus, action: &str, attributes: &[(&str, String)]) -> NodeEvent {
        let (epoch, seq) = self.number();
        let event = NodeEvent {
            node_id: self.id.clone(),
            epoch,
            seq,
            time_ns: runtime::wire::now_ns(),
            action: action.to_owned(),
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
            container: Some(status),
            exec: None,
        };
        self.outbox.put(event.clone());
        event
    }

    pub fn network_id(&self) -> String {
        model::Digest::of(self.network.bridge().as_bytes()).hex().to_owned()
    }

    pub fn info(&self) -> NodeInfo {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let memory = read("/proc/meminfo");
        let kib = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        let os = read("/etc/os-release");
        let field = |name: &str| {
            os.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim_matches('"').to_owned()
        };
        let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        NodeInfo {
            id: self.id.clone(),
            name: read("/proc/sys/kernel/hostname"),
            version: service::VERSION.to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_bytes: kib * 1024,
            kernel_version: read("/proc/sys/kernel/osrelease"),
            operating_system: field("PRETTY_NAME="),
            os_version: field("VERSION_ID="),
            architecture: std::env::consts::ARCH.to_owned(),
            runtime: self.runtime_binary.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            runtime_version: self.runtime_version.clone(),
            cgroup_version: if v2 { "2" } else { "1" }.to_owned(),
            data_dir: self.machine_dir.display().to_string(),
            bridge_subnet: self.network.subnet(),
            bridge_gateway: self.network.gateway().to_string(),
            bridge_name: self.network.bridge(),
            bridge_network_id: self.network_id(),
            epoch: self.epoch,
            ..NodeInfo::default()
        }
    }
}

/// `crun version 1.8.1` says it on its first line; empty when it does not.
fn version_of(runtime: &Path) -> String {
    let said = std::process::Command::new(runtime).arg("--version").output().map(|output| output.stdout);
    let text = String::from_utf8(said.unwrap_or_default()).unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    first.split_whitespace().last().unwrap_or_default().to_owned()
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
