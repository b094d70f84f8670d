//! The network of a step's container.

use std::path::{Path, PathBuf};

use runtime::bundle::{Mount, Namespace};

use crate::builder::bind;
use crate::failure::{Doing as _, Failure};

/// The networks that steps may join.
#[derive(Clone, Debug, Default)]
pub struct Networks {}

/// One step's place in a network, until [`Networks::leave`].
#[derive(Debug)]
pub struct StepNetwork {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Host,
    None,
}

impl Networks {
    /// `host`, `none`, or the default: the bridge.
    pub async fn join(&self, mode: &str, _container_id: &str) -> Result<StepNetwork, Failure> {
        let kind = match mode {
            "host" => Kind::Host,
            "none" => Kind::None,
            "" | "default" | "bridge" => Kind::Host,
            other => return Err(Failure::user(format!("network mode {other:?} is not supported in builds"))),
        };
        Ok(StepNetwork { kind })
    }

    pub async fn leave(&self, _network: StepNetwork) {}
}

impl StepNetwork {
    pub fn namespace(&self) -> Namespace {
        match self.kind {
            Kind::Host => Namespace::Host,
            Kind::None => Namespace::Private,
        }
    }

    /// The host's name in its own network, else the container's.
    pub fn hostname(&self, container_id: &str) -> String {
        let own = || model::short_id(container_id).to_owned();
        match self.kind {
            Kind::Host => nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(own),
            Kind::None => own(),
        }
    }

    /// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, written into `folder`, as mounts.
    pub fn files(&self, folder: &Path, extra_hosts: &[String], container_id: &str) -> Result<Vec<Mount>, Failure> {
        let hostname = self.hostname(container_id);
        let mut hosts = String::from(HOSTS);
        for extra in extra_hosts {
            if let Some((name, address)) = extra.split_once([':', '=']) {
                hosts.push_str(&format!("{address}\t{name}\n"));
            }
        }
        let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let write = |name: &str, text: &str| -> Result<Mount, Failure> {
            let path: PathBuf = folder.join(name);
            std::fs::write(&path, text).doing(|| format!("writing {}", path.display()))?;
            Ok(bind(path, format!("/etc/{name}")))
        };
        Ok(vec![write("hosts", &hosts)?, write("hostname", &format!("{hostname}\n"))?, write("resolv.conf", &resolv)?])
    }
}

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
    ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
