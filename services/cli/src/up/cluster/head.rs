//! What the head keeps of its cluster: its address, and who was let in.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use clap::ValueEnum;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::up::config::write_private;
use crate::up::status;

/// First of three ports: NATS, layer store, byte streams.
const PORT: u16 = 7420;
/// Longest name of a member, so that subjects and folders stay short.
const NAME_MAX_BYTES: usize = 40;

/// `cluster/head.json`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub address: IpAddr,
    pub port: u16,
    /// Further names and addresses that the certificates hold.
    #[serde(default)]
    pub names: Vec<String>,
    /// Where it listens, where that is not `address` alone.
    #[serde(default)]
    pub listen: Option<IpAddr>,
    pub members: Vec<Member>,
}

#[derive(Serialize, Deserialize, ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Keeps containers
    Node,
    /// Runs builds
    Worker,
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub kind: Kind,
    pub name: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Worker => "worker",
        })
    }
}

impl Member {
    pub fn new(kind: Kind, name: &str) -> Outcome<Self> {
        // It is a word of bus subjects and the name of a folder.
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > NAME_MAX_BYTES || name.starts_with('-') || !name.chars().all(fine) {
            return Err(Failure::new(format!(
                "{name:?} is no name: up to {NAME_MAX_BYTES} letters, digits and hyphens, no hyphen first"
            )));
        }
        Ok(Self { kind, name: name.to_owned() })
    }

    /// Its user on the bus.
    pub fn user(&self) -> String {
        format!("{}-{}", self.kind, self.name)
    }

    /// Name of the secret that is its token at the layer store.
    pub fn token(&self) -> String {
        format!("token-{}", self.user())
    }
}

impl Head {
    pub fn new(address: &str) -> Outcome<Self> {
        let parsed = address.parse::<SocketAddr>().map(|a| (a.ip(), a.port()));
        let parsed = parsed.or_else(|_| address.parse::<IpAddr>().map(|ip| (ip, PORT)));
        let (ip, port) = parsed.map_err(|_| Failure::new(format!("--address {address}: write IP or IP:PORT")))?;
        if ip.is_unspecified() || port == 0 || port > u16::MAX - 2 {
            return Err(Failure::new(format!("--address {address}: other machines must be able to dial it")));
        }
        Ok(Self { address: ip, port, names: Vec::new(), listen: None, members: Vec::new() })
    }

    /// What the head's certificates say that it is.
    pub fn all_names(&self) -> Vec<String> {
        [&[self.address.to_string()], &self.names[..]].concat()
    }

    pub fn store_port(&self) -> u16 {
        self.port + 1
    }

    /// `ip:port` of NATS, of the layer store and of byte streams.
    pub fn nats(&self) -> SocketAddr {
        (self.address, self.port).into()
    }

    pub fn store(&self) -> SocketAddr {
        (self.address, self.port + 1).into()
    }

    pub fn streams(&self) -> SocketAddr {
        (self.address, self.port + 2).into()
    }

    /// Where to listen for those who dial `address`.
    pub fn listening(&self, address: SocketAddr) -> SocketAddr {
        (self.listen.unwrap_or(self.address), address.port()).into()
    }

    pub fn read(data_dir: &Path) -> Outcome<Option<Self>> {
        read_json(&data_dir.join("cluster/head.json"))
    }

    pub fn require(data_dir: &Path) -> Outcome<Self> {
        Self::read(data_dir)?.ok_or_else(|| {
            Failure::new(format!("{} is not the head of a cluster", data_dir.display()))
                .hint("Make it one with 'boxyard cluster init'.")
        })
    }

    pub fn write(&self, data_dir: &Path) -> Outcome {
        write_private(&data_dir.join("cluster/head.json"), &serde_json::to_vec_pretty(self)?)
    }
}

/// None when there is no such file.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Outcome<Option<T>> {
    let cannot = |error: &dyn fmt::Display| Failure::new(format!("{} cannot be read: {error}", path.display()));
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| cannot(&e)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot(&error)),
    }
}

/// A running NATS reads its users and certificates again, and drops users that are gone. One that does not run reads them at its start.
pub fn reload_nats(data_dir: &Path) {
    status::signal(data_dir, "nats", Signal::SIGHUP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names() {
        for (address, wanted) in [
            ("10.0.0.1", Some("10.0.0.1:7420")),
            ("10.0.0.1:9000", Some("10.0.0.1:9000")),
            ("[fd00::1]:9000", Some("[fd00::1]:9000")),
            ("0.0.0.0", None),
            ("10.0.0.1:0", None),
            ("10.0.0.1:65535", None),
            ("head.example", None),
        ] {
            let got = Head::new(address).ok().map(|head| head.nats().to_string());
            assert_eq!(got.as_deref(), wanted, "{address}");
        }
        for (name, fine) in [("a", true), ("b-2", true), ("", false), ("-a", false), ("a.b", false), ("a*", false)] {
            assert_eq!(Member::new(Kind::Node, name).is_ok(), fine, "{name}");
        }
        assert!(Member::new(Kind::Node, &"a".repeat(41)).is_err());
    }
}
