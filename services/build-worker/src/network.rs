//! The network of a step's container.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use network::{Endpoint, Network};
use runtime::bundle::{Mount, Namespace};
use tokio::sync::OnceCell;

use crate::container::bind;
use crate::failure::{Doing as _, Failure};

/// Stands for the machine's own address in the bridge network (`--add-host NAME:host-gateway`).
const HOST_GATEWAY: &str = "host-gateway";
/// Names of the containers that a build has in the bridge network, for a sweep after a kill.
const NOTES: &str = "endpoints";

/// The networks that steps may join. The bridge is set up by the first that needs it.
#[derive(Clone, Debug)]
pub struct Networks {
    instance: String,
    state_dir: PathBuf,
    bridge: Arc<OnceCell<Network>>,
}

/// One step's place in a network. Dropped, it goes away in the background: nobody need wait for it.
#[derive(Debug)]
pub struct StepNetwork {
    container_id: String,
    /// Instead of one made of the container's id.
    hostname: Option<String>,
    networks: Networks,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Host,
    None,
    Bridge { endpoint: Endpoint, note: PathBuf },
}

impl Networks {
    /// `state_dir` is shared with the other processes of the machine.
    pub fn new(instance: &str, state_dir: PathBuf) -> Self {
        Self { instance: instance.to_owned(), state_dir, bridge: Arc::default() }
    }

    /// `host`, `none`, or the default: the bridge. What is joined is noted in the build's folder.
    pub async fn join(&self, mode: &str, container_id: &str, build: &Path) -> Result<StepNetwork, Failure> {
        let kind = match mode {
            "host" => Kind::Host,
            "none" => Kind::None,
            "" | "default" | "bridge" => {
                let notes = build.join(NOTES);
                let note = notes.join(container_id);
                std::fs::create_dir_all(&notes)
                    .and_then(|()| std::fs::write(&note, ""))
                    .doing(|| format!("writing {}", note.display()))?;
                let endpoint = self.bridge().await?.attach(container_id).await.map_err(Failure::caused)?;
                Kind::Bridge { endpoint, note }
            }
            other => return Err(Failure::user(format!("network mode {other:?} is not supported in builds"))),
        };
        Ok(StepNetwork { container_id: container_id.to_owned(), hostname: None, networks: self.clone(), kind })
    }

    /// Takes away what a killed worker's steps had.
    pub async fn sweep(&self, build: &Path) -> Result<(), Failure> {
        let Ok(notes) = std::fs::read_dir(build.join(NOTES)) else { return Ok(()) };
        for note in notes.flatten() {
            self.detach(&note.file_name().to_string_lossy()).await?;
        }
        Ok(())
    }

    /// Takes down bridge and namespaces, where there are any: at the end of a machine without a node, which does it
    /// else.
    pub async fn take_down(&self) -> Result<(), Failure> {
        if !self.state_dir.exists() {
            return Ok(());
        }
        self.bridge().await?.cleanup().await.map_err(Failure::caused)
    }

    async fn detach(&self, container_id: &str) -> Result<(), Failure> {
        self.bridge().await?.detach(container_id).await.map_err(Failure::caused)
    }

    async fn bridge(&self) -> Result<&Network, Failure> {
        self.bridge
            .get_or_try_init(|| Network::open(&self.instance, &self.state_dir))
            .await
            .map_err(|error| Failure::internal(format!("the bridge network: {error}")))
    }
}

impl StepNetwork {
    /// Has another name where it does not share the machine's, which stands for loopback, as with BuildKit.
    pub fn named(mut self, hostname: &str) -> Self {
        self.hostname = Some(hostname.to_owned());
        self
    }

    pub fn namespace(&self) -> Namespace {
        match &self.kind {
            Kind::Host => Namespace::Host,
            Kind::None => Namespace::Private,
            Kind::Bridge { endpoint, .. } => Namespace::Path(endpoint.netns_path.clone()),
        }
    }

    /// The machine's name in its own network, else the container's.
    pub fn hostname(&self) -> String {
        let own = || self.hostname.clone().unwrap_or_else(|| model::short_id(&self.container_id).to_owned());
        match self.kind {
            Kind::Host => nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(own),
            Kind::None | Kind::Bridge { .. } => own(),
        }
    }

    /// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, written into `folder`, as mounts.
    pub async fn files(&self, folder: &Path, extra_hosts: &[String]) -> Result<Vec<Mount>, Failure> {
        let hostname = self.hostname();
        let mut hosts = match &self.hostname {
            Some(_) => format!("127.0.0.1\tlocalhost {hostname}\n{HOSTS_V6}"),
            None => format!("127.0.0.1\tlocalhost\n{HOSTS_V6}{HOSTS_V6_GROUPS}"),
        };
        for (name, address) in extra_hosts.iter().filter_map(|extra| extra.split_once([':', '='])) {
            match address {
                HOST_GATEWAY => hosts.push_str(&format!("{}\t{name}\n", self.networks.bridge().await?.gateway())),
                _ => hosts.push_str(&format!("{address}\t{name}\n")),
            }
        }
        if let (Kind::Bridge { endpoint, .. }, None) = (&self.kind, &self.hostname) {
            hosts.push_str(&format!("{}\t{hostname}\n", endpoint.ip));
        }
        let mut resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        if !matches!(self.kind, Kind::Host) {
            resolv = reachable_servers(&resolv);
        }
        let write = |name: &str, text: &str| -> Result<Mount, Failure> {
            let path = folder.join(name);
            std::fs::write(&path, text).doing(|| format!("writing {}", path.display()))?;
            Ok(bind(path, format!("/etc/{name}")))
        };
        Ok(vec![write("hosts", &hosts)?, write("hostname", &format!("{hostname}\n"))?, write("resolv.conf", &resolv)?])
    }
}

impl Drop for StepNetwork {
    fn drop(&mut self) {
        let Kind::Bridge { note, .. } = &self.kind else { return };
        let (networks, id, note) = (self.networks.clone(), self.container_id.clone(), note.clone());
        tokio::spawn(async move {
            match networks.detach(&id).await {
                Ok(()) => drop(std::fs::remove_file(note)),
                Err(error) => tracing::warn!(%error, container_id = %id, "a network endpoint stays"),
            }
        });
    }
}

const HOSTS_V6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\n";
const HOSTS_V6_GROUPS: &str =
    "fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Docker's choice where the machine's own servers listen on loopback only.
const PUBLIC_SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

/// A resolv.conf without the servers that cannot be reached from another network namespace.
fn reachable_servers(text: &str) -> String {
    let address = |line: &str| -> Option<IpAddr> {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.split('%').next()?.parse().ok())?
    };
    let kept: Vec<&str> = text.lines().filter(|line| !address(line).is_some_and(|ip| ip.is_loopback())).collect();
    let mut lines: Vec<String> = kept.iter().map(|line| (*line).to_owned()).collect();
    if !kept.iter().any(|line| address(line).is_some()) {
        lines.extend(PUBLIC_SERVERS.map(|server| format!("nameserver {server}")));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_loopback_are_left_out() {
        let text = "search x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\noptions edns0\n";
        assert_eq!(reachable_servers(text), "search x\nnameserver 10.0.0.1\noptions edns0\n");
        assert_eq!(reachable_servers("nameserver ::1\n"), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }
}
