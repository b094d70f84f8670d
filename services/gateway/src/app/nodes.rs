use bus::{Call, Target};
use model::ErrorKind;
use prost::Message as _;

use super::{App, Failure, Outcome, lock};

/// A record that its node does not hold is older than this when it counts as lost.
const LOST_AFTER_MS: i64 = 60_000;

impl App {
    /// A node has started, or says again what it holds: its inventory is the truth for what is older than its number.
    pub async fn node_hello(&self, hello: proto::NodeHello) -> Outcome<proto::NodeHelloReply> {
        let info = hello.info.ok_or_else(|| Failure::invalid("a node's greeting without its name"))?;
        let inventory = hello.inventory.unwrap_or_default();
        let events: Vec<proto::NodeEvent> = inventory
            .containers
            .iter()
            .map(|status| proto::NodeEvent {
                node_id: info.id.clone(),
                epoch: inventory.epoch,
                seq: inventory.seq,
                container: Some(status.clone()),
                ..Default::default()
            })
            .collect();
        self.apply(&events, None).await?;
        for container in self.db.containers().await? {
            let held = inventory.containers.iter().any(|status| status.id == container.id);
            let older = container.epoch != 0
                && (container.epoch.cast_unsigned(), container.seq.cast_unsigned()) < (inventory.epoch, inventory.seq);
            let lost = container.epoch == 0 && metadata::now_ms() - container.created_ms > LOST_AFTER_MS;
            if container.node_id == info.id && !held && (older || lost) {
                self.db.forget_container(&container.id).await?;
                let _ = self.changed.send(container.id);
            }
        }
        let known_ids = self.db.container_ids_of_node(&info.id).await?;
        lock(&self.nodes).insert(info.id.clone(), info);
        Ok(proto::NodeHelloReply { known_ids })
    }

    pub fn nodes(&self) -> Vec<proto::NodeInfo> {
        lock(&self.nodes).values().cloned().collect()
    }

    /// Nodes that are known from their greeting, or from their signs of life when this gateway has started after them.
    pub async fn known_nodes(&self) -> Vec<proto::NodeInfo> {
        let known = self.nodes();
        if !known.is_empty() {
            return known;
        }
        let alive = self.bus.alive().await.unwrap_or_default();
        for node in alive.iter().filter(|alive| alive.kind == "node") {
            let mut info = proto::NodeInfo::decode(node.info.as_slice()).unwrap_or_default();
            info.id.clone_from(&node.id);
            lock(&self.nodes).insert(info.id.clone(), info);
        }
        self.nodes()
    }

    /// The node of a new container. One machine has one; placement over several comes later.
    pub async fn choose_node(&self) -> Outcome<String> {
        let nodes = self.known_nodes().await;
        let first = nodes.into_iter().next();
        first.map(|node| node.id).ok_or_else(|| Failure::new(ErrorKind::Unavailable, "no node is running"))
    }

    pub async fn node_call<C: Call>(&self, node_id: &str, request: &C::Request) -> Outcome<C::Reply> {
        Ok(self.bus.call::<C>(&Target::Node(node_id.to_owned()), request).await?)
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
