//! The texts of a container's /etc/hosts and /etc/resolv.conf.

use std::net::Ipv4Addr;

use proto::{ContainerSpec, NetworkEndpoint};

const LOCAL: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                     ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
/// Docker's, for a machine whose own are not reachable from inside.
const PUBLIC_DNS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

pub fn hosts(spec: &ContainerSpec, endpoint: Option<&NetworkEndpoint>, gateway: Ipv4Addr, of_host: &str) -> String {
    let mut text = if spec.network_mode == "host" { of_host.to_owned() } else { LOCAL.to_owned() };
    for (name, ip) in spec.extra_hosts.iter().filter_map(|line| line.split_once(':')) {
        let ip = if ip == "host-gateway" { gateway.to_string() } else { ip.to_owned() };
        text += &format!("{ip}\t{name}\n");
    }
    if let Some(endpoint) = endpoint {
        let (ip, host, domain) = (&endpoint.ip_address, &spec.hostname, &spec.domainname);
        text += &match domain.is_empty() {
            true => format!("{ip}\t{host}\n"),
            false => format!("{ip}\t{host}.{domain} {host}\n"),
        };
    }
    text
}

/// The machine's, with what the container says differently.
pub fn resolv_conf(spec: &ContainerSpec, of_host: &str) -> String {
    let own_network = spec.network_mode != "host";
    if spec.dns.is_empty() && spec.dns_search.is_empty() && spec.dns_options.is_empty() && !own_network {
        return of_host.to_owned();
    }
    let words = |key: &str| -> Vec<String> {
        let lines = of_host.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(key)).then(|| words.map(str::to_owned).collect::<Vec<_>>())
        });
        lines.flatten().collect()
    };
    let or_host = |own: &[String], key: &str| if own.is_empty() { words(key) } else { own.to_vec() };
    let mut servers = or_host(&spec.dns, "nameserver");
    if own_network && spec.dns.is_empty() {
        // The machine's loopback is not the container's.
        servers.retain(|server| !server.starts_with("127.") && server != "::1");
        if servers.is_empty() {
            servers = PUBLIC_DNS.map(str::to_owned).to_vec();
        }
    }
    let mut search = or_host(&spec.dns_search, "search");
    search.retain(|domain| domain != ".");
    let options = or_host(&spec.dns_options, "options");
    let mut text = String::new();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    for server in servers {
        text += &format!("nameserver {server}\n");
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_machines_loopback_server_is_none_inside() {
        let host = "# local\nsearch a.b\nnameserver 127.0.0.53\noptions edns0\n";
        let spec = ContainerSpec { network_mode: "bridge".into(), ..ContainerSpec::default() };
        assert_eq!(resolv_conf(&spec, host), "search a.b\nnameserver 8.8.8.8\nnameserver 8.8.4.4\noptions edns0\n");
        let own = ContainerSpec {
            dns: list(&["127.0.0.1"]),
            dns_search: list(&["."]),
            dns_options: list(&["ndots:1"]),
            ..spec
        };
        assert_eq!(resolv_conf(&own, host), "nameserver 127.0.0.1\noptions ndots:1\n");
        let hosts_network = ContainerSpec { network_mode: "host".into(), ..ContainerSpec::default() };
        assert_eq!(resolv_conf(&hosts_network, host), host);
    }

    #[test]
    fn names_of_others_and_the_own() {
        let spec = ContainerSpec {
            hostname: "h".into(),
            domainname: "d".into(),
            extra_hosts: list(&["one:1.2.3.4", "up:host-gateway", "six:::2"]),
            ..ContainerSpec::default()
        };
        let end = NetworkEndpoint { ip_address: "10.0.0.2".into(), ..NetworkEndpoint::default() };
        let text = hosts(&spec, Some(&end), Ipv4Addr::new(10, 0, 0, 1), "");
        assert!(text.ends_with("1.2.3.4\tone\n10.0.0.1\tup\n::2\tsix\n10.0.0.2\th.d h\n"), "{text}");
    }
}
