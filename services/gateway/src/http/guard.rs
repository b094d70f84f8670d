//! Keeps web pages out. A browser lets any page send requests to loopback, and a name that its owner points at
//! 127.0.0.1 makes such a page even look like the same site (DNS rebinding). No command line or SDK sends what is
//! refused here; Boxyard's own page comes from the address that it asks.

use http::{HeaderMap, header};
use model::ErrorKind;

use crate::app::{Failure, Outcome};

/// Where requests come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Unix,
    /// TCP on loopback without TLS: everybody on this machine, browsers among them.
    Loopback,
    /// TCP with TLS, or that others reach by the word of who opened it without.
    Open,
}

impl Door {
    /// Of `unix:///path` or `tcp://ip:port`. A name in a certificate is nobody else's, so TLS needs no look at names.
    pub fn of(host: &str, has_tls: bool) -> Self {
        let address = host.strip_prefix("tcp://").and_then(|address| address.parse::<std::net::SocketAddr>().ok());
        match address {
            None => Self::Unix,
            Some(address) if address.ip().is_loopback() && !has_tls => Self::Loopback,
            Some(_) => Self::Open,
        }
    }

    /// # Errors
    /// `Denied` for a request of another site's page.
    pub fn check(self, headers: &HeaderMap) -> Outcome<()> {
        let text = |name| headers.get(name).map(|value: &http::HeaderValue| value.to_str().unwrap_or("?"));
        let host = text(header::HOST).unwrap_or_default();
        let refused = |why: String| Err(Failure::new(ErrorKind::Denied, why));
        if self == Self::Loopback && !is_own_name(host) {
            return refused(format!("the name {host} is not one of this address: use its number or localhost"));
        }
        if let Some(origin) = text(header::ORIGIN)
            && origin.split_once("://").is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
        {
            return refused(format!("requests of a page from {origin} are refused"));
        }
        let site = text(header::HeaderName::from_static("sec-fetch-site"));
        let mode = text(header::HeaderName::from_static("sec-fetch-mode"));
        // A link from elsewhere may lead here: what it shows stays in its own window.
        if matches!(site, Some("cross-site" | "same-site")) && mode != Some("navigate") {
            return refused("requests of a page from another site are refused".to_owned());
        }
        Ok(())
    }
}

/// An address by number, or a name that nobody else can own. Clients of unix sockets write any name ("docker").
fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name == "docker"
        || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_kept_out_and_clients_are_not() {
        for (door, lines, passes) in [
            (Door::Loopback, "host: 127.0.0.1:2375", true),
            (Door::Loopback, "host: [::1]:2375", true),
            (Door::Loopback, "host: localhost:2375", true),
            (Door::Loopback, "host: api.moby.localhost", true),
            (Door::Loopback, "host: docker", true),
            (Door::Loopback, "", true),
            (Door::Loopback, "host: rebound.example:2375", false),
            (Door::Loopback, "host: 127.0.0.1.example", false),
            (Door::Open, "host: build.example:2376", true),
            (Door::Unix, "host: anything", true),
            (Door::Loopback, "host: 127.0.0.1:2375\norigin: http://127.0.0.1:2375", true),
            (Door::Loopback, "host: 127.0.0.1:2375\norigin: http://127.0.0.1:8000", false),
            (Door::Loopback, "host: 127.0.0.1:2375\norigin: https://evil.example", false),
            (Door::Loopback, "host: 127.0.0.1:2375\norigin: null", false),
            (Door::Open, "host: build.example:2376\norigin: https://evil.example", false),
            (Door::Unix, "host: docker\norigin: https://evil.example", false),
            (Door::Loopback, "host: localhost\nsec-fetch-site: cross-site\nsec-fetch-mode: no-cors", false),
            (Door::Loopback, "host: localhost\nsec-fetch-site: cross-site\nsec-fetch-mode: navigate", true),
            (Door::Loopback, "host: localhost\nsec-fetch-site: same-origin\nsec-fetch-mode: cors", true),
            (Door::Loopback, "host: localhost\nsec-fetch-site: none\nsec-fetch-mode: navigate", true),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines.lines().filter_map(|line| line.split_once(": ")) {
                let name: header::HeaderName = name.parse().expect("a name");
                headers.insert(name, value.parse().expect("a value"));
            }
            assert_eq!(door.check(&headers).is_ok(), passes, "{door:?} {lines:?}");
        }
    }

    #[test]
    fn doors() {
        for (host, has_tls, door) in [
            ("unix:///run/x.sock", false, Door::Unix),
            ("tcp://127.0.0.1:2375", false, Door::Loopback),
            ("tcp://[::1]:2375", false, Door::Loopback),
            ("tcp://127.0.0.1:2376", true, Door::Open),
            ("tcp://10.0.0.1:2375", false, Door::Open),
            ("tcp://0.0.0.0:2375", false, Door::Open),
        ] {
            assert_eq!(Door::of(host, has_tls), door, "{host}");
        }
    }
}
