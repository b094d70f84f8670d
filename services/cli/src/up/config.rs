//! What a Boxyard is made of: its ports and secrets, kept in the data folder, and its
//! processes with their flags.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Up;
use super::caps::Caps;
use super::cluster::{Head, Joined, Kind, Member};
use super::nats;
use super::own_registry::OwnRegistry;
use super::process::Program;
use super::workers::Extra;
use super::{registries, tls};
use crate::failure::{Failure, Outcome};

/// A unix socket's path has no room for more (sun_path).
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// The database's URL, which holds a password.
const DATABASE: &str = "secrets/database";
/// Ports from here to those of outgoing connections are tried, so many of them.
const QUIET_PORTS_FROM: u16 = 20000;
const PORT_TRIES: usize = 50;

/// Kept over restarts.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct Kept {
    /// Six hex digits in every host-global name of this Boxyard.
    pub instance: String,
    pub nats_port: u16,
    pub store_port: u16,
    pub hosts: Vec<String>,
    pub workers: u32,
    #[serde(default)]
    pub extra_workers: Vec<Extra>,
    #[serde(default)]
    pub tls: tls::Files,
    #[serde(default)]
    pub caps: Caps,
    #[serde(default)]
    pub registry: OwnRegistry,
    #[serde(default)]
    pub registry_mirrors: Vec<String>,
    #[serde(default)]
    pub insecure_registries: Vec<String>,
}

/// All that the supervisor needs.
pub struct Plan {
    pub data_dir: PathBuf,
    pub kept: Kept,
    pub node: bool,
    /// This machine is the head of a cluster.
    pub head: Option<Head>,
    /// This machine has only nodes and workers of a cluster whose head is elsewhere.
    pub joined: Option<Joined>,
    /// The database's URL where one is asked for; else the one of the last start.
    database: Option<String>,
}

/// The folder that is meant when none is named.
pub fn data_dir(given: Option<PathBuf>) -> Outcome<PathBuf> {
    let chosen = given.unwrap_or_else(|| match (nix::unistd::geteuid().is_root(), std::env::var_os("HOME")) {
        (false, Some(home)) => PathBuf::from(home).join(".local/share/boxyard"),
        _ => PathBuf::from("/var/lib/boxyard"),
    });
    Ok(std::path::absolute(chosen)?)
}

impl Plan {
    /// Reads what was kept and adds what is asked for; writes nothing yet.
    pub fn new(up: &Up) -> Outcome<Self> {
        let is_default = up.data_dir.is_none();
        let data_dir = data_dir(up.data_dir.clone())?;
        let Self { mut kept, head, joined, .. } = Self::kept(&data_dir)?;
        if joined.is_some() {
            if !up.hosts.is_empty() || up.workers.is_some() || up.no_node {
                return Err(Failure::new(format!("{} has joined a cluster: its head has the API", data_dir.display())));
            }
            return Ok(Self { data_dir, kept, node: false, head, joined, database: None });
        }
        if !up.hosts.is_empty() {
            kept.hosts.clone_from(&up.hosts);
        } else if kept.hosts.is_empty() {
            let default = Path::new("/run/boxyard/boxyard.sock");
            let own = data_dir.join("docker.sock");
            let usual = is_default && nix::unistd::geteuid().is_root();
            kept.hosts.push(format!("unix://{}", if usual { default } else { &own }.display()));
        }
        if let Some(workers) = up.workers {
            kept.workers = workers;
        }
        kept.caps = up.caps.over(kept.caps);
        if let Some(mirrors) = &up.registry_mirrors {
            kept.registry_mirrors = registries::mirrors(mirrors)?;
        }
        if let Some(insecure) = &up.insecure_registries {
            kept.insecure_registries = registries::insecure(insecure)?;
        }
        if up.registry.are_given() {
            kept.registry = up.registry.over(&kept.registry)?;
            kept.registry.settle()?;
        }
        if up.tls.are_given() {
            kept.tls = up.tls.resolved()?;
        } else if head.is_some() && !kept.tls.are_given() {
            kept.tls = tls::Files::of_cluster(&data_dir.join("cluster"));
        }
        if let Some(url) = &up.database {
            check_database(url)?;
        }
        for host in &kept.hosts {
            check_host(host, up.insecure_api || kept.tls.are_given())?;
        }
        Ok(Self { data_dir, kept, node: !up.no_node, head, joined, database: up.database.clone() })
    }

    /// What the data folder holds, with nothing added.
    pub fn kept(data_dir: &Path) -> Outcome<Self> {
        let (head, joined) = (Head::read(data_dir)?, Joined::read(data_dir)?);
        let workers = if joined.is_some() { 0 } else { 1 };
        let kept: Kept = match fs::read(data_dir.join("boxyard.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Failure::new(format!("{}/boxyard.json cannot be read: {e}", data_dir.display())))?,
            Err(_) => Kept { workers, ..Kept::default() },
        };
        Ok(Self { data_dir: data_dir.to_owned(), kept, node: joined.is_none(), head, joined, database: None })
    }

    /// Makes folders, secrets and NATS' configuration. The data folder is locked already.
    pub fn prepare(&mut self) -> Outcome {
        if self.kept.instance.is_empty() {
            self.kept.instance = new_instance();
        }
        (self.kept.nats_port, self.kept.store_port) = match &self.head {
            Some(head) => (head.port, head.store_port()),
            None => (usable_port(self.kept.nats_port)?, usable_port(self.kept.store_port)?),
        };
        for folder in ["logs", "nats", "store", "gateway", "machine"] {
            fs::create_dir_all(self.data_dir.join(folder))?;
        }
        self.make_secrets_folder()?;
        for host in &self.kept.hosts {
            if let Some(parent) = host.strip_prefix("unix://").and_then(|p| Path::new(p).parent()) {
                fs::create_dir_all(parent)?;
            }
        }
        if self.joined.is_none() {
            self.secret("store-token")?;
            if let Some(url) = &self.database {
                write_private(&self.data_dir.join(DATABASE), url.as_bytes())?;
            }
            self.write_users()?;
        }
        self.write_kept()?;
        let _ = fs::remove_file(self.stop_mark());
        Ok(())
    }

    /// Gives a new head its id and writes what its processes need, for those who start them without `up`.
    pub fn found(&mut self) -> Outcome {
        self.kept.instance = new_instance();
        self.make_secrets_folder()?;
        self.secret("store-token")?;
        self.write_users()?;
        self.write_kept()
    }

    fn make_secrets_folder(&self) -> Outcome {
        let folder = self.data_dir.join("secrets");
        fs::create_dir_all(&folder)?;
        Ok(fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?)
    }

    pub fn write_kept(&self) -> Outcome {
        write_private(&self.data_dir.join("boxyard.json"), &serde_json::to_vec_pretty(&self.kept)?)
    }

    /// Tells NATS and the layer store whom they know: one user, and for nodes and workers one token, for each process.
    pub fn write_users(&self) -> Outcome {
        let mut tokens = String::new();
        for member in self.members() {
            let hash = model::Digest::of(self.secret(&member.token())?.as_bytes());
            tokens.push_str(&format!("{} {}\n", hash.hex(), member.user()));
        }
        write_private(&self.data_dir.join("secrets/store-tokens"), tokens.as_bytes())?;
        write_private(&self.data_dir.join("nats.conf"), nats::config(self)?.as_bytes())
    }

    /// Nodes and workers that the bus and the layer store know: this machine's, and those that were let in.
    pub fn members(&self) -> Vec<Member> {
        let own = Member { kind: Kind::Node, name: self.node_id().to_owned() };
        let let_in = |kind| self.head.iter().flat_map(|head| &head.members).filter(move |m| m.kind == kind).cloned();
        let nodes = std::iter::once(own).chain(let_in(Kind::Node));
        nodes.chain(self.own_workers()).chain(let_in(Kind::Worker)).collect()
    }

    /// Where NATS is.
    pub fn nats_address(&self) -> SocketAddr {
        self.head.as_ref().map_or_else(|| ([127, 0, 0, 1], self.kept.nats_port).into(), Head::nats)
    }

    /// Where NATS listens for that.
    pub fn nats_listens(&self) -> SocketAddr {
        let address = self.nats_address();
        self.head.as_ref().map_or(address, |head| head.listening(address))
    }

    /// What `up` says when everything is ready: how to use it, and where its page is for browsers.
    pub fn greeting(&self) -> String {
        if let Some(joined) = &self.joined {
            let names = joined.members.iter().map(|member| format!("{} {}", member.kind, member.name));
            return format!("Boxyard is ready: {} of {}", names.collect::<Vec<_>>().join(", "), joined.nats_url);
        }
        let mut text = format!("Boxyard is ready: export DOCKER_HOST={}", self.kept.hosts[0]);
        if let Some(address) = self.kept.hosts.iter().find_map(|host| host.strip_prefix("tcp://")) {
            let scheme = if self.kept.tls.are_given() { "https" } else { "http" };
            text.push_str(&format!("\nIts page: {scheme}://{address}/boxyard/"));
        }
        if let Some(address) = self.kept.registry.address() {
            text.push_str(&format!("\nIts registry: {address}"));
        }
        text
    }

    pub fn stop_mark(&self) -> PathBuf {
        stop_mark(&self.data_dir)
    }

    pub fn node_id(&self) -> &str {
        &self.kept.instance
    }

    fn own_workers(&self) -> impl Iterator<Item = Member> {
        let numbered = |n| Member { kind: Kind::Worker, name: format!("{}-{n}", self.kept.instance) };
        (1..=self.kept.workers).map(numbered).chain(self.kept.extra_workers.iter().map(Extra::member))
    }

    /// A secret's text; made at its first use.
    pub fn secret(&self, name: &str) -> Outcome<String> {
        let path = self.data_dir.join("secrets").join(name);
        if let Ok(text) = fs::read_to_string(&path) {
            return Ok(text.trim().to_owned());
        }
        let text = hex::encode(rand::random::<[u8; 32]>());
        write_private(&path, text.as_bytes())?;
        Ok(text)
    }

    /// The processes after NATS, in the order in which they start.
    pub fn programs(&self, beside: &Path) -> Vec<Program> {
        let at = |name: &str| self.data_dir.join(name).display().to_string();
        let (nats_url, store_url) = match (&self.head, &self.joined) {
            (Some(head), _) => (format!("tls://{}", head.nats()), format!("https://{}", head.store())),
            (None, Some(joined)) => (joined.nats_url.clone(), joined.store_url.clone()),
            (None, None) => (
                format!("nats://127.0.0.1:{}", self.kept.nats_port),
                format!("http://127.0.0.1:{}", self.kept.store_port),
            ),
        };
        let is_cluster = self.head.is_some() || self.joined.is_some();
        let (ca, token) = (at("cluster/ca.pem"), at("secrets/store-token"));
        let program = |name: String, binary: &str, user: &str, flags: Vec<String>| {
            let mut all: Vec<String> = vec![
                "--nats-url".into(),
                nats_url.clone(),
                "--nats-user".into(),
                user.to_owned(),
                "--nats-password-file".into(),
                at(&format!("secrets/{user}")),
            ];
            if is_cluster {
                all.extend(["--ca".into(), ca.clone()]);
            }
            all.extend(flags);
            Program { name, binary: beside.join(binary), arguments: all, log: self.data_dir.join("logs") }
        };
        let flags = |pairs: &[(&str, &str)]| {
            pairs.iter().flat_map(|(n, v)| [(*n).to_owned(), (*v).to_owned()]).collect::<Vec<_>>()
        };
        let listen = match &self.head {
            Some(head) => head.listening(head.store()).to_string(),
            None => format!("127.0.0.1:{}", self.kept.store_port),
        };
        let (store_dir, tokens) = (at("store"), at("secrets/store-tokens"));
        let mut store = vec![
            ("--listen", &*listen),
            ("--data-dir", &*store_dir),
            ("--token-file", &*token),
            ("--tokens-file", &*tokens),
        ];
        let bytes = [("--store-url", &*store_url), ("--token-file", &*token)];
        let gateway_dir = at("gateway");
        let streams = match &self.head {
            Some(head) => format!("tls:{}", head.listening(head.streams())),
            None => format!("unix:{gateway_dir}/streams.sock"),
        };
        let advertised = self.head.as_ref().map(|head| format!("tls:{}", head.streams()));
        let mut gateway = vec![("--data-dir", &*gateway_dir), ("--streams", &*streams)];
        gateway.extend(advertised.iter().map(|address| ("--advertise", address.as_str())));
        gateway.extend(self.kept.hosts.iter().map(|h| ("--host", h.as_str())));
        gateway.extend(bytes);
        let mirrors = self.kept.registry_mirrors.iter().map(|m| ("--registry-mirror", m.as_str()));
        let insecure = self.kept.insecure_registries.iter().map(|r| ("--insecure-registry", r.as_str()));
        let known: Vec<_> = mirrors.chain(insecure).collect();
        gateway.extend(&known);
        let database = at(DATABASE);
        if Path::new(&database).is_file() {
            gateway.push(("--database-file", &database));
        }
        let tls = self.kept.tls.flags();
        gateway.extend(tls.iter().map(|(flag, path)| (*flag, path.as_str())));
        let sync = [&bytes[..], &known].concat();
        let certificates =
            ["store.pem", "store.key", "streams.pem", "streams.key"].map(|f| at(&format!("cluster/{f}")));
        if self.head.is_some() {
            store.extend([("--listen-cert", &*certificates[0]), ("--listen-key", &*certificates[1])]);
            gateway.extend([("--streams-cert", &*certificates[2]), ("--streams-key", &*certificates[3])]);
        }
        let machine_dir = at("machine");
        let machine = [("--machine-dir", &*machine_dir), ("--instance", &*self.kept.instance)];
        let mut all = Vec::new();
        if self.joined.is_none() {
            let store = [flags(&store), self.kept.registry.store_flags()].concat();
            all.push(program("layer-store".into(), "boxyard-layer-store", "store", store));
            let gateway = [flags(&gateway), self.kept.caps.gateway_flags()].concat();
            all.push(program("gateway".into(), "boxyard-gateway", "gateway", gateway));
            all.push(program("registry-sync".into(), "boxyard-registry-sync", "sync", flags(&sync)));
        }
        let own_node = || Member { kind: Kind::Node, name: self.node_id().to_owned() };
        let members = match &self.joined {
            Some(joined) => joined.members.clone(),
            None => self.node.then(own_node).into_iter().chain(self.own_workers()).collect(),
        };
        let (nodes, workers): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.kind == Kind::Node);
        for node in &nodes {
            let token = at(&format!("secrets/{}", node.token()));
            let bytes = [("--store-url", &*store_url), ("--token-file", &*token)];
            let streams_host = self.joined.as_ref().and_then(|joined| joined.streams_host.as_deref());
            let streams_host: Vec<_> = streams_host.map(|host| ("--streams-host", host)).into_iter().collect();
            let own = [&[("--id", node.name.as_str())][..], &machine, &bytes, &streams_host].concat();
            all.push(program("node".into(), "boxyard-node", &node.user(), flags(&own)));
        }
        let extras = &self.kept.extra_workers;
        for (n, worker) in workers.iter().enumerate() {
            let extra = extras.iter().find(|extra| extra.member() == *worker);
            let folder = at(&worker.user());
            let token = at(&format!("secrets/{}", worker.token()));
            let bytes = [("--store-url", &*store_url), ("--token-file", &*token)];
            let own = [&[("--id", worker.name.as_str()), ("--data-dir", &*folder)][..], &machine, &bytes].concat();
            let (name, more) = match extra {
                Some(extra) => (extra.service(), extra.flags()),
                None => (format!("build-worker-{}", n + 1), Vec::new()),
            };
            let given = [flags(&own), self.kept.caps.worker_flags(), more].concat();
            all.push(program(name, "boxyard-build-worker", &worker.user(), given));
        }
        all
    }
}

/// With this file a node stops its containers when it is told to end.
pub fn stop_mark(data_dir: &Path) -> PathBuf {
    data_dir.join("machine/stop-containers")
}

/// Six hex digits.
fn new_instance() -> String {
    format!("{:06x}", rand::random::<u32>() & 0xff_ffff)
}

/// A file that was named, from any folder; it must be there.
pub fn canonical(path: Option<&Path>) -> Outcome<Option<PathBuf>> {
    let found = |path: &Path| path.canonicalize().map_err(|error| Failure::new(format!("{}: {error}", path.display())));
    path.map(found).transpose()
}

fn check_database(url: &str) -> Outcome {
    match url == "sqlite:" || url.starts_with("postgres://") || url.starts_with("postgresql://") {
        true => Ok(()),
        // Without the text: it may hold a password.
        false => Err(Failure::new("--database: write sqlite: or postgres://USER:PASSWORD@HOST:PORT/NAME")),
    }
}

fn check_host(host: &str, guarded: bool) -> Outcome {
    if let Some(path) = host.strip_prefix("unix://") {
        return match path.len() {
            0 => Err(Failure::new(format!("--host {host}: the socket's path is missing"))),
            n if n > SOCKET_PATH_MAX_BYTES => Err(Failure::new(format!(
                "--host {host}: a socket's path may have {SOCKET_PATH_MAX_BYTES} bytes, this has {n}"
            ))),
            _ if !path.starts_with('/') => {
                Err(Failure::new(format!("--host {host}: the socket's path must begin with /")))
            }
            _ => Ok(()),
        };
    }
    let address = host.strip_prefix("tcp://").and_then(|a| a.parse::<SocketAddr>().ok());
    let address = address.ok_or_else(|| Failure::new(format!("--host {host}: write unix:///PATH or tcp://IP:PORT")))?;
    if !address.ip().is_loopback() && !guarded {
        return Err(Failure::new(format!("--host {host}: anybody who reaches this address would be root here"))
            .hint("Give --tlscacert, --tlscert and --tlskey, or say --insecure-api if the network is trusted."));
    }
    Ok(())
}

/// The port that was used before if it is free, else a new one: of those that the kernel gives to no outgoing connection,
/// so that none has it when the service listens a moment later.
fn usable_port(before: u16) -> Outcome<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first_given = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32768);
    let quiet = QUIET_PORTS_FROM..first_given;
    let tries = if quiet.is_empty() { 0 } else { PORT_TRIES };
    let tries = std::iter::repeat_with(|| rand::random_range(quiet.clone())).take(tries);
    let wanted = Some(before).filter(|port| *port != 0).into_iter().chain(tries);
    let free = wanted.map(|port| TcpListener::bind(("127.0.0.1", port))).find(Result::is_ok);
    // The kernel's own choice comes last.
    let listener = free.unwrap_or_else(|| TcpListener::bind(("127.0.0.1", 0)));
    let listener = listener.map_err(|e| Failure::new(format!("no loopback port is free: {e}")))?;
    Ok(listener.local_addr()?.port())
}

/// Replaces a file that only its owner may read.
pub fn write_private(path: &Path, content: &[u8]) -> Outcome {
    let temporary = path.with_extension("new");
    let written = (|| {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|e| Failure::new(format!("writing {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_kept_while_it_is_free() {
        let port = usable_port(0).expect("a port");
        assert!(port >= QUIET_PORTS_FROM);
        assert_eq!(usable_port(port).expect("the same"), port);
        let taken = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
        let other = usable_port(port).expect("another");
        assert_ne!(other, taken.local_addr().expect("bound").port());
    }

    #[test]
    fn databases_are_checked_and_never_shown() {
        for (url, fine) in
            [("sqlite:", true), ("postgres://u:secret@h/d", true), ("mysql://u:secret@h/d", false), ("", false)]
        {
            let checked = check_database(url);
            assert_eq!(checked.is_ok(), fine, "{url}");
            assert!(checked.err().is_none_or(|failure| !failure.message.contains("secret")));
        }
    }

    #[test]
    fn hosts_are_checked() {
        for (host, insecure, fine) in [
            ("unix:///run/x.sock", false, true),
            ("unix://", false, false),
            ("unix://x", false, false),
            ("tcp://127.0.0.1:1", false, true),
            ("tcp://[::1]:1", false, true),
            ("tcp://10.0.0.1:1", false, false),
            ("tcp://10.0.0.1:1", true, true),
            ("tcp://name:1", false, false),
        ] {
            assert_eq!(check_host(host, insecure).is_ok(), fine, "{host}");
        }
        assert!(check_host(&format!("unix:///{}", "a".repeat(120)), false).is_err());
    }
}
