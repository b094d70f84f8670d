//! The machines' build workers, with what they have to do.

use std::collections::BTreeMap;

use metadata::WorkerOrders;

use super::page::List;
use super::services::Sign;
use super::shape::Time;
use crate::app::workers::{Able, KIND};
use crate::app::{App, Failure, Outcome};
use crate::shape;

shape! {
    /// A build worker.
    pub struct Worker {
        /// Its id.
        pub id: String,
        /// Its name.
        pub name: String,
        /// Version of its program.
        pub version: String,
        /// Host that it runs on.
        pub host: String,
        /// When it was started.
        pub started_at: Option<Time>,
        /// Whether it gave a sign of life in the last 15 seconds.
        pub alive: bool,
        /// Whether it was drained: it takes no new builds and steps.
        pub drained: bool,
        /// The node on the same machine.
        pub node_id: String,
        /// What it builds for without emulation, such as linux/amd64.
        pub platform: String,
        /// All that it builds for, its own first.
        pub platforms: Vec<String>,
        /// How many builds, and steps of other workers' builds, it runs at once.
        pub slots: u32,
        /// How many slots are in use, as it said last.
        pub busy: u32,
        /// How many builds it has now.
        pub running: u64,
        /// Labels that it was started with or given since.
        pub labels: BTreeMap<String, String>,
    }
}

impl App {
    pub async fn workers(&self) -> Outcome<List<Worker>> {
        let counted = self.db.count_builds().await?;
        let running = |id: &str| {
            let own = counted.iter().filter(|(state, worker, _)| state == "running" && worker == id);
            own.map(|(_, _, count)| count.unsigned_abs()).sum()
        };
        let orders = self.db.worker_orders().await?;
        let signs = self.signs().await?.into_iter().filter(|sign| sign.alive.kind == KIND);
        let worker =
            |sign: Sign| Worker { running: running(&sign.alive.id), ..shown(&sign, orders.get(&sign.alive.id)) };
        Ok(List::whole(signs.map(worker).collect()))
    }

    /// # Errors
    /// `NotFound` for a worker that neither lives nor was seen lately.
    pub async fn worker(&self, id: &str) -> Outcome<Worker> {
        let found = self.workers().await?.items.into_iter().find(|worker| worker.id == id);
        found.ok_or_else(|| Failure::not_found(format!("no such build worker: {id}")))
    }
}

fn shown(sign: &Sign, orders: Option<&WorkerOrders>) -> Worker {
    let info: proto::WorkerInfo = prost::Message::decode(sign.alive.info.as_slice()).unwrap_or_default();
    let able = Able::new(&info, orders);
    let proto::WorkerInfo { id: _, name, version: _, node_id, slots, platform, labels: _, platforms, busy } = info;
    Worker {
        id: sign.alive.id.clone(),
        name,
        version: sign.alive.version.clone(),
        host: sign.alive.host.clone(),
        started_at: Time::of_ms(sign.alive.started_at_ms),
        alive: sign.is_alive,
        drained: able.drained,
        node_id,
        platform,
        platforms,
        slots,
        busy,
        running: 0,
        labels: able.labels,
    }
}
