//! Machines of a test: network namespaces on one switch. All names carry an id, and all is gone when it is dropped.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::boxyard::search_path;
use crate::engine::run_command;

/// The namespaces of a cluster; the first is the switch.
#[derive(Debug)]
pub struct Network {
    /// In all names.
    id: String,
    namespaces: Vec<String>,
}

impl Network {
    pub fn new() -> Self {
        // Tests of one process have a cluster each.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("bc{:x}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut network = Self { id, namespaces: Vec::new() };
        let switch = network.namespace();
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        network
    }

    fn namespace(&mut self) -> String {
        let name = format!("{}-{}", self.id, self.namespaces.len());
        ip(&["netns", "add", &name]);
        self.namespaces.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        name
    }

    /// A namespace that is on the switch, with an address in the network of another; the first has the head's.
    pub fn machine_beside(&mut self, neighbour: &str) -> String {
        let name = self.namespace();
        let (switch, number) = (self.namespaces[0].clone(), self.namespaces.len() - 1);
        let port = format!("p{number}");
        ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
        let (network, _) = neighbour.rsplit_once('.').expect("an address");
        self.add_address(&name, &format!("{network}.{number}"));
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
        name
    }

    /// Of what a namespace begins, only connections to these ports of one address get out. What comes back is counted.
    pub fn let_out_only(&self, namespace: &str, address: &str, ports: &[u16]) {
        let out: String = ports.iter().map(|port| format!("ip daddr {address} tcp dport {port} accept\n")).collect();
        let back: String =
            ports.iter().map(|port| format!("ip saddr {address} tcp sport {port} counter accept\n")).collect();
        let chain = |name: &str, hook: &str, rules: &str| {
            format!("chain {name} {{ type filter hook {hook} priority filter; policy drop; {rules} }}\n")
        };
        let chains = [
            chain("out", "output", &format!("oifname lo accept\n{out}")),
            chain("back", "input", &format!("iifname lo accept\n{back}")),
            chain("through", "forward", ""),
        ];
        let table = format!("table inet firewall {{\n{}}}\n", chains.concat());
        self.nft(namespace, &["-f", "-"], &table);
    }

    /// Bytes that came from one port to a namespace with such a firewall.
    pub fn received_bytes(&self, namespace: &str, port: u16) -> u64 {
        let rules = self.nft(namespace, &["list", "chain", "inet", "firewall", "back"], "");
        let line = rules.lines().find(|line| line.contains(&format!("tcp sport {port} ")));
        let bytes = line.and_then(|line| line.split_once(" bytes ")?.1.split_whitespace().next()?.parse().ok());
        bytes.unwrap_or_else(|| panic!("no counter of port {port}: {rules}"))
    }

    fn nft(&self, namespace: &str, args: &[&str], stdin: &str) -> String {
        let mut nft = Command::new("nsenter");
        nft.env("PATH", search_path()).arg(format!("--net=/run/netns/{namespace}")).arg("nft");
        run_command(&mut nft, args, Some(stdin.as_bytes())).ok().to_owned()
    }

    /// Takes a namespace's port of the switch down, or up again.
    pub fn set_port(&self, namespace: &str, up: bool) {
        let number = self.namespaces.iter().position(|name| name == namespace).expect("a namespace of this network");
        ip(&["-n", &self.namespaces[0], "link", "set", &format!("p{number}"), if up { "up" } else { "down" }]);
    }

    pub fn add_address(&self, namespace: &str, address: &str) {
        ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let _ = Command::new("ip").env("PATH", search_path()).args(["netns", "delete", name]).status();
        }
    }
}

/// Listens at an address of a network namespace: a socket belongs to the one in which it was made, whoever uses it.
pub fn listen_in(namespace: &Path, address: SocketAddr) -> TcpListener {
    let namespace = File::open(namespace).expect("the namespace");
    let bound = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
        TcpListener::bind(address).expect("listen")
    });
    bound.join().expect("a listener")
}

fn ip(args: &[&str]) {
    run_command(Command::new("ip").env("PATH", search_path()), args, None).ok();
}
