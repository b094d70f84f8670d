//! The registry that a Boxyard itself is, for `docker push IP:PORT/...`.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::config::canonical;
use crate::failure::{Failure, Outcome};

#[derive(Args, Serialize, Deserialize, Debug, Clone, Default)]
pub struct OwnRegistry {
    /// Be a registry there: IP:PORT (port 0: any that is free; `off`: no more)
    #[arg(long = "registry", id = "own_registry", value_name = "IP:PORT")]
    address: Option<String>,
    /// Users of --registry, a file as `htpasswd -B` writes it; without it everybody may push and pull
    #[arg(long, value_name = "FILE")]
    registry_htpasswd: Option<PathBuf>,
    /// Certificate (PEM) that --registry shows
    #[arg(long, value_name = "FILE", requires = "registry_key")]
    registry_cert: Option<PathBuf>,
    /// Private key (PEM) of --registry-cert
    #[arg(long, value_name = "FILE", requires = "registry_cert")]
    registry_key: Option<PathBuf>,
    /// Allow --registry without passwords or without TLS on an address that others can reach
    #[arg(long)]
    registry_insecure: bool,
}

impl OwnRegistry {
    pub fn are_given(&self) -> bool {
        self.address.is_some()
            || self.registry_htpasswd.is_some()
            || self.registry_cert.is_some()
            || self.registry_insecure
    }

    /// What is asked for over what was kept; files are named from any folder.
    pub fn over(&self, kept: &Self) -> Outcome<Self> {
        let Self { address, registry_htpasswd, registry_cert, registry_key, registry_insecure } = self;
        if address.as_deref() == Some("off") {
            return Ok(Self::default());
        }
        let chosen = |given: &Option<PathBuf>, before: &Option<PathBuf>| -> Outcome<_> {
            Ok(canonical(given.as_deref())?.or_else(|| before.clone()))
        };
        let merged = Self {
            address: address.clone().filter(|_| !self.may_stay(kept)).or_else(|| kept.address.clone()),
            registry_htpasswd: chosen(registry_htpasswd, &kept.registry_htpasswd)?,
            registry_cert: chosen(registry_cert, &kept.registry_cert)?,
            registry_key: chosen(registry_key, &kept.registry_key)?,
            registry_insecure: *registry_insecure || kept.registry_insecure,
        };
        merged.check()?;
        Ok(merged)
    }

    fn check(&self) -> Outcome {
        let Some(text) = &self.address else {
            return Err(Failure::new("the --registry-... flags go with --registry IP:PORT"));
        };
        let address = self.parsed().ok_or_else(|| Failure::new(format!("--registry {text}: write IP:PORT or off")))?;
        let guarded = self.registry_htpasswd.is_some() && self.registry_cert.is_some();
        if !address.ip().is_loopback() && !guarded && !self.registry_insecure {
            return Err(Failure::new(format!("--registry {text}: anybody who reaches this address could push here"))
                .hint("Give --registry-htpasswd, --registry-cert and --registry-key, or say --registry-insecure."));
        }
        Ok(())
    }

    /// Any port is asked for, and there is one of this address that was kept and is free.
    fn may_stay(&self, kept: &Self) -> bool {
        let (Some(asked), Some(before)) = (self.parsed(), kept.parsed()) else { return false };
        asked.port() == 0 && asked.ip() == before.ip() && TcpListener::bind(before).is_ok()
    }

    fn parsed(&self) -> Option<SocketAddr> {
        self.address.as_deref()?.parse().ok()
    }

    /// Port 0 becomes one that is free; it stays the same from then on.
    pub fn settle(&mut self) -> Outcome {
        if let Some(address) = self.parsed().filter(|address| address.port() == 0) {
            let free = TcpListener::bind(address).and_then(|listener| listener.local_addr());
            let free = free.map_err(|error| Failure::new(format!("--registry {address}: {error}")))?;
            self.address = Some(free.to_string());
        }
        Ok(())
    }

    /// Where it is, when there is one.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// As flags of the layer store.
    pub fn store_flags(&self) -> Vec<String> {
        self.flags("--tls-cert", "--tls-key")
    }

    /// As flags of `up` itself.
    pub fn up_flags(&self) -> Vec<String> {
        match self.address {
            Some(_) => self.flags("--registry-cert", "--registry-key"),
            None => vec!["--registry".to_owned(), "off".to_owned()],
        }
    }

    fn flags(&self, cert: &str, key: &str) -> Vec<String> {
        let Some(address) = &self.address else { return Vec::new() };
        let mut flags = vec!["--registry".to_owned(), address.clone()];
        let files =
            [("--registry-htpasswd", &self.registry_htpasswd), (cert, &self.registry_cert), (key, &self.registry_key)];
        for (flag, file) in files {
            flags.extend(file.iter().flat_map(|file| [flag.to_owned(), file.display().to_string()]));
        }
        if self.registry_insecure {
            flags.push("--registry-insecure".to_owned());
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> OwnRegistry {
        OwnRegistry { address: Some(address.to_owned()), ..OwnRegistry::default() }
    }

    #[test]
    fn an_address_is_checked() {
        let none = OwnRegistry::default();
        for (address, insecure, fine) in [
            ("127.0.0.1:5000", false, true),
            ("[::1]:0", false, true),
            ("10.0.0.1:5000", false, false),
            ("10.0.0.1:5000", true, true),
            ("localhost:5000", false, false),
            ("127.0.0.1", false, false),
            ("off", false, true),
        ] {
            let given = OwnRegistry { registry_insecure: insecure, ..at(address) };
            assert_eq!(given.over(&none).is_ok(), fine, "{address}");
        }
        assert!(OwnRegistry { registry_insecure: true, ..none.clone() }.over(&none).is_err(), "insecure what?");
    }

    #[test]
    fn what_was_kept_stays_until_it_is_off() {
        let kept = at("127.0.0.1:5000");
        let again = OwnRegistry { registry_insecure: true, ..OwnRegistry::default() };
        assert_eq!(again.over(&kept).expect("merges").address(), Some("127.0.0.1:5000"));
        let off = at("off").over(&kept).expect("goes");
        assert_eq!(off.store_flags(), [] as [&str; 0]);
    }

    #[test]
    fn any_port_becomes_one() {
        let mut registry = at("127.0.0.1:0");
        registry.settle().expect("settles");
        assert_ne!(registry.parsed().expect("an address").port(), 0);
        assert_eq!(registry.store_flags()[0], "--registry");
        assert_eq!(at("127.0.0.1:0").over(&registry).expect("merges").address(), registry.address(), "it stays");
    }
}
