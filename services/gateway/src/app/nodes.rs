use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bus::{Call, Target, calls};
use prost::Message as _;

use super::{App, Failure, Outcome, lock};

/// Signs of life are looked at so often, where anybody asks.
const LOOK: Duration = Duration::from_secs(5);
/// A sign of life lasts 15 seconds; a node that was not heard of for longer is gone.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// Nodes, and when each was heard of last.
#[derive(Default)]
pub struct Nodes {
    known: BTreeMap<String, (proto::NodeInfo, Instant)>,
    looked: Option<Instant>,
}

impl Nodes {
    fn heard(&mut self, info: proto::NodeInfo) {
        self.known.insert(info.id.clone(), (info, Instant::now()));
    }

    fn living(&self) -> Vec<proto::NodeInfo> {
        let heard = self.known.values().filter(|(_, heard)| heard.elapsed() < LOST_AFTER);
        heard.map(|(info, _)| info.clone()).collect()
    }

    /// True once in a while, and always while there is no node.
    fn is_time_to_look(&mut self) -> bool {
        let is_time = self.living().is_empty() || self.looked.is_none_or(|looked| looked.elapsed() > LOOK);
        if is_time {
            self.looked = Some(Instant::now());
        }
        is_time
    }
}

/// Why nothing can be said of what a container does now; none while its node is among the living.
pub fn lost(living: &[proto::NodeInfo], node_id: &str) -> Option<String> {
    let is_there = living.iter().any(|node| node.id == node_id);
    (!is_there).then(|| format!("node {node_id} is lost"))
}

impl App {
    /// A node has started, or says again what it holds: its inventory is the truth for what is older than its number.
    pub async fn node_hello(&self, hello: proto::NodeHello) -> Outcome<proto::NodeHelloReply> {
        let info = hello.info.ok_or_else(|| Failure::invalid("a node's greeting without its name"))?;
        let statuses = hello.inventory.unwrap_or_default();
        let inventory = metadata::Inventory {
            node_id: info.id.clone(),
            epoch: statuses.epoch,
            seq: statuses.seq,
            containers: statuses.containers.iter().map(|s| (s.id.clone(), s.encode_to_vec())).collect(),
        };
        let healed = self.db.apply_inventory(&inventory).await?;
        lock(&self.nodes).heard(info);
        for at in healed.updated {
            self.healed_to(&statuses.containers[at], (inventory.epoch, inventory.seq));
        }
        for id in &healed.forgotten {
            self.changed_to_gone(id);
            self.share_change(id);
        }
        Ok(proto::NodeHelloReply { known_ids: healed.known })
    }

    /// Nodes that were heard of lately.
    pub fn nodes(&self) -> Vec<proto::NodeInfo> {
        lock(&self.nodes).living()
    }

    /// The same, after a look at who gives signs of life: another gateway may have been greeted, a node may be gone.
    pub async fn known_nodes(&self) -> Vec<proto::NodeInfo> {
        if lock(&self.nodes).is_time_to_look()
            && let Ok(alive) = self.bus.alive_of("node").await
        {
            for node in &alive {
                let mut info = proto::NodeInfo::decode(node.info.as_slice()).unwrap_or_default();
                info.id.clone_from(&node.id);
                lock(&self.nodes).heard(info);
            }
        }
        self.nodes()
    }

    /// Lets every node unpack layers ahead: only a head start, a run unpacks what is missing.
    pub async fn prefetch(&self, layers: Vec<proto::Layer>) {
        for node in self.known_nodes().await {
            let (bus, request) = (self.bus.clone(), proto::Prefetch { layers: layers.clone() });
            tokio::spawn(async move { bus.call::<calls::Prefetch>(&Target::Node(node.id), &request).await });
        }
    }

    /// Lets every node remove unpacked layers that nothing stands on any more.
    pub async fn forget_layers(&self, diff_ids: Vec<String>) {
        if diff_ids.is_empty() {
            return;
        }
        for node in self.known_nodes().await {
            let request = proto::ForgetLayers { diff_ids: diff_ids.clone() };
            if let Err(error) = self.node_call::<calls::ForgetLayers>(&node.id, &request).await {
                tracing::warn!(%error, node_id = node.id, "a node keeps unpacked layers");
            }
        }
    }

    pub async fn node_call<C: Call>(&self, node_id: &str, request: &C::Request) -> Outcome<C::Reply> {
        Ok(self.bus.call::<C>(&Target::Node(node_id.to_owned()), request).await?)
    }

    /// The same of a node that may be lost: none when it is, since what it holds cannot be told then.
    pub async fn node_call_if_there<C: Call>(&self, node_id: &str, request: &C::Request) -> Outcome<Option<C::Reply>> {
        match self.bus.call::<C>(&Target::Node(node_id.to_owned()), request).await {
            Err(error) if error.is_lost() => {
                tracing::warn!(%error, node_id, call = C::NAME, "a node is left out");
                Ok(None)
            }
            done => Ok(Some(done?)),
        }
    }

    /// A call that changes a container; its events are in the database when this returns.
    pub async fn change<C: Call<Reply = proto::NodeReply>>(
        &self,
        node_id: &str,
        request: &C::Request,
    ) -> Outcome<proto::NodeReply> {
        let reply = self.node_call::<C>(node_id, request).await?;
        self.apply(&reply.events, None).await?;
        Ok(reply)
    }
}
