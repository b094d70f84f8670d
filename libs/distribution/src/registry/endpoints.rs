use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::PathBuf;

use url::Url;

use super::Error;

/// The registry of names without a host, where its API is.
const HUB: &str = "https://registry-1.docker.io/";

/// How registries are reached; the rules are dockerd's.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Asked first for what docker.io has, in order: `http(s)://host[:port]`.
    pub mirrors: Vec<String>,
    /// Hosts (`host[:port]`) and networks (`10.0.0.0/8`) whose registries need no TLS, or no known certificate.
    pub insecure: Vec<String>,
    /// `<host:port>/*.crt` are CAs; `*.cert` and `*.key` belong to this client.
    pub certs_dir: PathBuf,
}

/// One address of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Ends in a slash.
    pub(super) base: Url,
    pub(super) is_mirror: bool,
    /// The server must show a certificate that is trusted.
    pub(super) verifies: bool,
}

/// The addresses of one registry, best first.
pub struct Attempts {
    left: VecDeque<Endpoint>,
    current: Option<Endpoint>,
}

impl Iterator for Attempts {
    type Item = Endpoint;

    fn next(&mut self) -> Option<Endpoint> {
        self.current = self.left.pop_front();
        self.current.clone()
    }
}

impl Attempts {
    /// Whether the next address may do better: after any failure of a mirror, else after one without an HTTP answer.
    pub fn may_go_on(&self, error: &Error) -> bool {
        let was_mirror = self.current.as_ref().is_some_and(|endpoint| endpoint.is_mirror);
        !self.left.is_empty() && (was_mirror || error.is_transport())
    }
}

impl Endpoint {
    /// Sends to `other` would go without the TLS that this registry has.
    pub(super) fn demotes(&self, other: &Url) -> bool {
        self.base.scheme() == "https" && other.scheme() != "https"
    }
}

impl Settings {
    /// Where `host` ("docker.io", "127.0.0.1:5000") may be reached; mirrors are for reading only.
    ///
    /// # Errors
    /// `Settings` when a mirror or the host makes no URL.
    pub(super) async fn attempts(&self, host: &str, with_mirrors: bool) -> Result<Attempts, Error> {
        let mut left = VecDeque::new();
        if host == "docker.io" {
            for mirror in self.mirrors.iter().filter(|_| with_mirrors) {
                let base = parse(&format!("{}/", mirror.trim_end_matches('/')))?;
                let verifies = !self.is_insecure(&authority(&base)).await;
                left.push_back(Endpoint { base, is_mirror: true, verifies });
            }
            left.push_back(Endpoint { base: parse(HUB)?, is_mirror: false, verifies: true });
        } else {
            let verifies = !self.is_insecure(host).await;
            let https = parse(&format!("https://{host}/"))?;
            left.push_back(Endpoint { base: https, is_mirror: false, verifies });
            if !verifies {
                left.push_back(Endpoint { base: parse(&format!("http://{host}/"))?, is_mirror: false, verifies });
            }
        }
        Ok(Attempts { left, current: None })
    }

    /// Named so, or with an address in one of the networks; loopback always is.
    pub(super) async fn is_insecure(&self, host: &str) -> bool {
        if self.insecure.iter().any(|named| named == host) {
            return true;
        }
        let (name, port) = split_port(host);
        let addresses: Vec<IpAddr> = match name.parse() {
            Ok(address) => vec![address],
            Err(_) => match tokio::net::lookup_host((name, port.unwrap_or(443))).await {
                Ok(found) => found.map(|address| address.ip()).collect(),
                Err(_) => return false,
            },
        };
        let networks = || self.insecure.iter().filter_map(|named| Network::parse(named));
        addresses.iter().any(|address| {
            let is_loopback = matches!(address, IpAddr::V4(v4) if v4.is_loopback());
            is_loopback || networks().any(|network| network.holds(address))
        })
    }
}

fn parse(url: &str) -> Result<Url, Error> {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    parsed.ok_or_else(|| Error::Settings(format!("{url:?} is no address of a registry")))
}

/// `host:port`, or `host` where the port is the scheme's own.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && !port.contains(']') => (bare(name), port.parse().ok()),
        _ => (bare(host), None),
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

/// `10.0.0.0/8`
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        Some(Self { address: address.parse().ok()?, prefix: prefix.parse().ok()? })
    }

    fn holds(&self, other: &IpAddr) -> bool {
        let equal = |a: u128, b: u128, bits: u32| {
            let ignored = bits.saturating_sub(self.prefix);
            a.checked_shr(ignored).unwrap_or(0) == b.checked_shr(ignored).unwrap_or(0)
        };
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => equal(u32::from(a).into(), u32::from(*b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => equal(u128::from(a), u128::from(*b), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(host: &str, with_mirrors: bool, expected: &[(&str, bool)]) {
        let settings = Settings {
            mirrors: vec!["http://127.0.0.1:5000".to_owned(), "https://mirror.example/proxy/".to_owned()],
            insecure: vec!["10.0.0.0/8".to_owned(), "reg.example:5000".to_owned(), "fd00::/8".to_owned()],
            certs_dir: PathBuf::new(),
        };
        let attempts = settings.attempts(host, with_mirrors).await.expect("endpoints");
        let found: Vec<_> = attempts.map(|endpoint| (endpoint.base.to_string(), endpoint.verifies)).collect();
        let expected: Vec<_> = expected.iter().map(|(url, verifies)| ((*url).to_owned(), *verifies)).collect();
        assert_eq!(found, expected, "{host}");
    }

    #[tokio::test]
    async fn registries_are_where_docker_looks() {
        let hub = ("https://registry-1.docker.io/", true);
        check("docker.io", false, &[hub]).await;
        let mirrors = [("http://127.0.0.1:5000/", false), ("https://mirror.example/proxy/", true), hub];
        check("docker.io", true, &mirrors).await;
        check("127.0.0.1:5000", true, &[("https://127.0.0.1:5000/", false), ("http://127.0.0.1:5000/", false)]).await;
        check("10.1.2.3", true, &[("https://10.1.2.3/", false), ("http://10.1.2.3/", false)]).await;
        check("[fd00::1]:5000", true, &[("https://[fd00::1]:5000/", false), ("http://[fd00::1]:5000/", false)]).await;
        check("192.0.2.1:5000", true, &[("https://192.0.2.1:5000/", true)]).await;
        check("reg.example:5000", true, &[("https://reg.example:5000/", false), ("http://reg.example:5000/", false)])
            .await;
        check("localhost:5000", true, &[("https://localhost:5000/", false), ("http://localhost:5000/", false)]).await;
    }

    #[tokio::test]
    async fn a_realm_without_tls_is_noticed() {
        let settings = Settings::default();
        let hub = settings.attempts("docker.io", false).await.expect("endpoints").next().expect("one");
        for (realm, demoted) in [("https://auth.docker.io/token", false), ("http://auth.docker.io/token", true)] {
            assert_eq!(hub.demotes(&Url::parse(realm).expect("a URL")), demoted, "{realm}");
        }
        assert!(!settings.is_insecure("192.0.2.1:5000").await && settings.is_insecure("127.0.0.2:5000").await);
    }

    #[tokio::test]
    async fn only_a_mirror_is_passed_over_after_an_answer() {
        let settings = Settings { mirrors: vec!["http://127.0.0.1:1".to_owned()], ..Settings::default() };
        let refused = Error::answer(http::StatusCode::NOT_FOUND, None, b"{}");
        let broken = Error::Transport { request: String::new(), why: String::new(), retry: true };
        let mut hub = settings.attempts("docker.io", true).await.expect("endpoints");
        hub.next();
        assert!(hub.may_go_on(&refused) && hub.may_go_on(&broken));
        hub.next();
        assert!(!hub.may_go_on(&broken), "nothing is left");
        let mut local = settings.attempts("127.0.0.1:2", true).await.expect("endpoints");
        local.next();
        assert!(local.may_go_on(&broken) && !local.may_go_on(&refused));
    }
}
