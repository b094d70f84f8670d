use bus::{Call, Target};
use model::ErrorKind;
use prost::Message as _;

use super::{App, Failure, Outcome, lock};

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
        lock(&self.nodes).insert(info.id.clone(), info);
        for at in healed.updated {
            self.changed_to(&statuses.containers[at]);
        }
        for id in &healed.forgotten {
            self.changed_to_gone(id);
        }
        Ok(proto::NodeHelloReply { known_ids: healed.known })
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

    /// Where a node keeps its containers; empty while it is not known.
    pub async fn machine_dir(&self, node_id: &str) -> String {
        let nodes = self.known_nodes().await;
        let found = nodes.into_iter().find(|node| node.id == node_id);
        found.map(|node| node.data_dir).unwrap_or_default()
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
