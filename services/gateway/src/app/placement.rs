use std::collections::{HashMap, HashSet};

use model::ErrorKind;

use super::containers::Container;
use super::{App, Failure, Outcome, view};

/// The label by which a container, or a volume, is put on a node by name: `docker run --label com.boxyard.node=NAME`.
const NODE: &str = "com.boxyard.node";

impl App {
    /// The node of a new container, the first of: the one that its label names, the one of the container whose
    /// namespaces it joins, the one that holds its volume, the one with the fewest containers.
    ///
    /// # Errors
    /// `InvalidArgument` when the label names no node that is there or two of these say different nodes;
    /// `Unavailable` when there is no node.
    pub async fn place_container(&self, spec: &proto::ContainerSpec, beside: &[Container]) -> Outcome<String> {
        let nodes = self.known_nodes().await;
        if nodes.is_empty() {
            return Err(no_node());
        }
        let named = named_node(&nodes, &spec.labels)?;
        if let [only] = nodes.as_slice() {
            return Ok(only.id.clone());
        }
        let mut bound: Vec<String> = beside.iter().map(|other| other.node_id.clone()).collect();
        for mode in [&spec.network_mode, &spec.pid_mode, &spec.ipc_mode] {
            if let Some(other) = mode.strip_prefix("container:") {
                bound.push(self.find_container(other).await?.node_id);
            }
        }
        let volumes: HashSet<&str> = spec
            .mounts
            .iter()
            .filter(|mount| mount.r#type() == proto::mount::Type::Volume)
            .map(|mount| mount.source.as_str())
            .collect();
        if !volumes.is_empty() {
            bound.extend(self.nodes_of_volumes(&volumes).await?);
        }
        bound.extend(named);
        match bound.first() {
            None => self.emptiest(&nodes).await,
            Some(first) if bound.iter().all(|node| node == first) => Ok(first.clone()),
            Some(first) => {
                let other = bound.iter().find(|node| *node != first).unwrap_or(first);
                Err(Failure::invalid(format!(
                    "the container would have to be on node {first} and on node {other}, where its label, volumes or joined containers are"
                )))
            }
        }
    }

    /// The node of a new volume: the one that its label names, else the first.
    pub async fn place_volume(&self, labels: &HashMap<String, String>) -> Outcome<String> {
        let nodes = self.known_nodes().await;
        if let Some(named) = named_node(&nodes, labels)? {
            return Ok(named);
        }
        nodes.into_iter().next().map(|node| node.id).ok_or_else(no_node)
    }

    async fn emptiest(&self, nodes: &[proto::NodeInfo]) -> Outcome<String> {
        let mut running: HashMap<String, usize> = HashMap::new();
        for container in self.db.containers().await? {
            if super::containers::is_up(view::status_of(&container).state()) {
                *running.entry(container.node_id).or_default() += 1;
            }
        }
        let load = |node: &&proto::NodeInfo| running.get(&node.id).copied().unwrap_or(0);
        nodes.iter().min_by_key(load).map(|node| node.id.clone()).ok_or_else(no_node)
    }
}

fn named_node(nodes: &[proto::NodeInfo], labels: &HashMap<String, String>) -> Outcome<Option<String>> {
    let Some(wanted) = labels.get(NODE) else { return Ok(None) };
    match nodes.iter().any(|node| node.id == *wanted) {
        true => Ok(Some(wanted.clone())),
        false => Err(Failure::invalid(format!("label {NODE}: there is no node {wanted}"))),
    }
}

fn no_node() -> Failure {
    Failure::new(ErrorKind::Unavailable, "no node is running")
}
