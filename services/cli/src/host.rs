//! Where the daemon listens: `-H`, BOXYARD_HOST, DOCKER_HOST, then the default sockets, or with TLS this machine's port
//! for it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};

const BOXYARD_SOCKET: &str = "/run/boxyard/boxyard.sock";
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
const TLS_ADDRESS: &str = "localhost:2376";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

impl Host {
    /// Takes the first address that is set.
    pub fn resolve(flag: Option<&str>, by_tls: bool) -> Outcome<Self> {
        let from_env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        match flag.map(str::to_owned).or_else(|| from_env("BOXYARD_HOST")).or_else(|| from_env("DOCKER_HOST")) {
            Some(text) => Self::parse(&text),
            None if by_tls => Ok(Self::Tcp(TLS_ADDRESS.to_owned())),
            None if Path::new(BOXYARD_SOCKET).exists() => Ok(Self::Unix(BOXYARD_SOCKET.into())),
            None => Ok(Self::Unix(DOCKER_SOCKET.into())),
        }
    }

    pub fn parse(text: &str) -> Outcome<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = if path.is_empty() { DOCKER_SOCKET } else { path };
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")) {
            let address = match address.trim_end_matches('/') {
                "" => "localhost",
                address => address,
            };
            let port_at = address.rfind(':').filter(|at| !address[*at..].contains(']'));
            return Ok(Self::Tcp(match port_at {
                Some(_) => address.to_owned(),
                None => format!("{address}:2375"),
            }));
        }
        Err(Failure::new(format!("unable to parse docker host `{text}`"))
            .hint("Write unix:///path/to/socket or tcp://host:port."))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("unix:///run/x.sock", Some("unix:///run/x.sock")),
            ("tcp://127.0.0.1:1", Some("tcp://127.0.0.1:1")),
            ("tcp://", Some("tcp://localhost:2375")),
            ("tcp://box", Some("tcp://box:2375")),
            ("tcp://[::1]", Some("tcp://[::1]:2375")),
            ("box", None),
        ] {
            assert_eq!(Host::parse(text).ok().map(|h| h.to_string()).as_deref(), expected, "{text}");
        }
    }
}
