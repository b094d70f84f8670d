//! What `docker info` says of the registries that this engine knows.

use serde_json::{Map, Value, json};

/// RegistryConfig, in dockerd's shape: mirrors end in a slash, loopback is the last of the insecure networks.
pub fn config(registries: &service::RegistryArgs) -> Value {
    let mirrors: Vec<String> =
        registries.mirrors.iter().map(|mirror| format!("{}/", mirror.trim_end_matches('/'))).collect();
    let (mut networks, hosts): (Vec<&str>, Vec<&str>) =
        registries.insecure.iter().map(String::as_str).partition(|registry| registry.contains('/'));
    networks.push("127.0.0.0/8");
    let mut indexes: Map<String, Value> = hosts
        .into_iter()
        .map(|host| (host.to_owned(), json!({"Name": host, "Mirrors": [], "Secure": false, "Official": false})))
        .collect();
    let listed = if mirrors.is_empty() { Value::Null } else { json!(mirrors) };
    let hub = json!({"Name": "docker.io", "Mirrors": mirrors, "Secure": true, "Official": true});
    indexes.insert("docker.io".to_owned(), hub);
    json!({
        "InsecureRegistryCIDRs": networks, "IndexConfigs": indexes, "Mirrors": listed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_hosts_and_networks() {
        let registries = service::RegistryArgs {
            mirrors: vec!["http://127.0.0.1:5000".to_owned()],
            insecure: vec!["box:5000".to_owned(), "10.0.0.0/8".to_owned()],
        };
        let config = config(&registries);
        assert_eq!(config["Mirrors"], json!(["http://127.0.0.1:5000/"]));
        assert_eq!(config["IndexConfigs"]["docker.io"]["Mirrors"], config["Mirrors"]);
        assert_eq!(config["IndexConfigs"]["box:5000"]["Secure"], false);
        assert_eq!(config["InsecureRegistryCIDRs"], json!(["10.0.0.0/8", "127.0.0.0/8"]));
    }
}
