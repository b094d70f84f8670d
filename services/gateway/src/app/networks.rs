//! The three networks that every Docker has. Networks of a user's own come later.

use serde_json::{Map, Value, json};

use super::{App, Failure, Outcome, containers::is_up, filters::Filters, view};

/// Made with the node: Docker shows a time, and nothing here depends on it.
const CREATED: &str = "2024-01-01T00:00:00Z";

pub struct Network {
    pub id: String,
    pub name: &'static str,
    pub driver: &'static str,
    subnet: Value,
    options: Value,
}

impl App {
    pub async fn networks(&self) -> Vec<Network> {
        // Asked for, so that the first node is known.
        self.known_nodes().await;
        self.networks_of_known()
    }

    pub fn network_id(&self, name: &str) -> Option<String> {
        self.networks_of_known().into_iter().find(|network| network.name == name).map(|network| network.id)
    }

    fn networks_of_known(&self) -> Vec<Network> {
        let node = self.nodes().into_iter().next().unwrap_or_default();
        // Host and none have no bridge to be named after; the id must only stay the same.
        let id = |name: &str| model::Digest::of(format!("{}/{name}", node.id).as_bytes()).hex().to_owned();
        let plain = |name: &'static str, driver| Network {
            id: id(name),
            name,
            driver,
            subnet: Value::Null,
            options: json!({}),
        };
        let bridge = Network {
            id: if node.bridge_network_id.is_empty() { id("bridge") } else { node.bridge_network_id },
            name: "bridge",
            driver: "bridge",
            subnet: json!([{"Subnet": node.bridge_subnet, "Gateway": node.bridge_gateway}]),
            options: json!({
                "com.docker.network.bridge.default_bridge": "true", "com.docker.network.bridge.enable_icc": "true",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
                "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
                "com.docker.network.bridge.name": node.bridge_name, "com.docker.network.driver.mtu": "1500"
            }),
        };
        vec![bridge, plain("host", "host"), plain("none", "null")]
    }

    pub async fn list_networks(&self, filters: &Filters) -> Outcome<Value> {
        let dangling = filters.flag("dangling")?;
        if let Some(kind) = filters.values("type").find(|kind| !matches!(*kind, "builtin" | "custom")) {
            return Err(Failure::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
        let kept = self.networks().await.into_iter().filter(|network| {
            dangling != Some(true)
                && filters.any("name", |v| network.name.contains(v))
                && filters.any("id", |v| network.id.starts_with(v))
                && filters.any("driver", |v| network.driver == v)
                && filters.any("scope", |v| v == "local")
                && filters.any("type", |v| v == "builtin")
                && !filters.has("label")
        });
        Ok(kept.map(|network| network.json(json!({}))).collect())
    }

    pub async fn find_network(&self, wanted: &str) -> Outcome<Network> {
        let networks = self.networks().await;
        let found = networks.into_iter().find(|network| {
            network.name == wanted || network.id == wanted || (wanted.len() >= 4 && network.id.starts_with(wanted))
        });
        found.ok_or_else(|| Failure::not_found(format!("network {wanted} not found")))
    }

    pub async fn inspect_network(&self, wanted: &str) -> Outcome<Value> {
        let network = self.find_network(wanted).await?;
        let mut members = Map::new();
        for container in self.db.containers().await? {
            let (spec, status) = (view::spec_of(&container), view::status_of(&container));
            if is_up(status.state()) && spec.network_mode == network.name {
                let endpoint = status.network.unwrap_or_default();
                let address = match endpoint.ip_address.is_empty() {
                    true => String::new(),
                    false => format!("{}/{}", endpoint.ip_address, endpoint.ip_prefix_len),
                };
                let member = json!({"Name": container.name, "EndpointID": endpoint.endpoint_id,
                    "MacAddress": endpoint.mac_address, "IPv4Address": address, "IPv6Address": ""});
                members.insert(container.id, member);
            }
        }
        Ok(network.json(Value::Object(members)))
    }
}

impl Network {
    fn json(&self, members: Value) -> Value {
        json!({
            "Name": self.name, "Id": self.id, "Created": CREATED, "Scope": "local", "Driver": self.driver,
            "EnableIPv4": true, "EnableIPv6": false,
            "IPAM": {"Driver": "default", "Options": null, "Config": self.subnet},
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""},
            "ConfigOnly": false, "Containers": members, "Options": self.options, "Labels": {}
        })
    }
}
