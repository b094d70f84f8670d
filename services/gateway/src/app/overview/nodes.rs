//! Machines: those that run containers, and the workers that build.

use std::collections::{BTreeMap, HashMap};

use super::page::List;
use super::services::Sign;
use crate::app::{App, Outcome, view};
use crate::shape;

shape! {
    /// A machine that runs containers.
    pub struct Node {
        /// Its id.
        pub id: String,
        /// Its host's name.
        pub name: String,
        /// Version of its program.
        pub version: String,
        /// Whether it gave a sign of life in the last 15 seconds.
        pub alive: bool,
        /// Processors.
        pub cpus: u32,
        /// Memory of the machine, in bytes.
        pub memory_bytes: u64,
        /// x86_64, aarch64 ...
        pub architecture: String,
        /// Its operating system.
        pub operating_system: String,
        /// Version of its kernel.
        pub kernel_version: String,
        /// Its OCI runtime with its version.
        pub runtime: String,
        /// Labels that it was given.
        pub labels: BTreeMap<String, String>,
        /// Its containers by state: only states that occur.
        pub containers: BTreeMap<String, u64>,
    }

    /// A build worker.
    pub struct Worker {
        /// Its id.
        pub id: String,
        /// Its name.
        pub name: String,
        /// Version of its program.
        pub version: String,
        /// Whether it gave a sign of life in the last 15 seconds.
        pub alive: bool,
        /// The node on the same machine.
        pub node_id: String,
        /// What it builds for, such as linux/amd64.
        pub platform: String,
        /// How many builds it runs at once.
        pub slots: u32,
        /// How many it runs now.
        pub running: u64,
        /// Labels that it was given.
        pub labels: BTreeMap<String, String>,
    }
}

fn of_kind<T: prost::Message + Default>(signs: Vec<Sign>, kind: &str) -> impl Iterator<Item = (Sign, T)> {
    let signs: Vec<Sign> = signs.into_iter().filter(|sign| sign.alive.kind == kind).collect();
    signs.into_iter().map(|sign| {
        let info = T::decode(sign.alive.info.as_slice()).unwrap_or_default();
        (sign, info)
    })
}

fn sorted(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}

impl App {
    pub async fn node_list(&self) -> Outcome<List<Node>> {
        let mut held: HashMap<String, BTreeMap<String, u64>> = HashMap::new();
        for container in self.db.containers().await? {
            let state = view::state_word(view::status_of(&container).state()).to_owned();
            *held.entry(container.node_id).or_default().entry(state).or_default() += 1;
        }
        let node = |(sign, info): (Sign, proto::NodeInfo)| Node {
            containers: held.get(&sign.alive.id).cloned().unwrap_or_default(),
            id: sign.alive.id,
            name: info.name,
            version: sign.alive.version,
            alive: sign.is_alive,
            cpus: info.cpus,
            memory_bytes: info.memory_bytes,
            architecture: info.architecture,
            operating_system: info.operating_system,
            kernel_version: info.kernel_version,
            runtime: format!("{} {}", info.runtime, info.runtime_version).trim().to_owned(),
            labels: sorted(info.labels),
        };
        Ok(List::whole(of_kind(self.signs().await?, "node").map(node).collect()))
    }

    pub async fn workers(&self) -> Outcome<List<Worker>> {
        let counted = self.db.count_builds().await?;
        let running = |id: &str| {
            let own = counted.iter().filter(|(state, worker, _)| state == "running" && worker == id);
            own.map(|(_, _, count)| count.unsigned_abs()).sum()
        };
        let worker = |(sign, info): (Sign, proto::WorkerInfo)| Worker {
            running: running(&sign.alive.id),
            id: sign.alive.id,
            name: info.name,
            version: sign.alive.version,
            alive: sign.is_alive,
            node_id: info.node_id,
            platform: info.platform,
            slots: info.slots,
            labels: sorted(info.labels),
        };
        Ok(List::whole(of_kind(self.signs().await?, "build-worker").map(worker).collect()))
    }
}
