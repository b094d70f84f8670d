//! The machines that run containers.

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
}

impl App {
    pub async fn node_list(&self) -> Outcome<List<Node>> {
        let mut held: HashMap<String, BTreeMap<String, u64>> = HashMap::new();
        for container in self.db.containers().await? {
            let state = view::state_word(view::status_of(&container).state()).to_owned();
            *held.entry(container.node_id).or_default().entry(state).or_default() += 1;
        }
        let node = |sign: Sign| {
            let info: proto::NodeInfo = prost::Message::decode(sign.alive.info.as_slice()).unwrap_or_default();
            Node {
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
                labels: info.labels.into_iter().collect(),
            }
        };
        let signs = self.signs().await?.into_iter().filter(|sign| sign.alive.kind == "node");
        Ok(List::whole(signs.map(node).collect()))
    }
}
