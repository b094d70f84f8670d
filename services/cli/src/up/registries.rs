//! The registries that a Boxyard is told of, checked before anything starts.

use std::net::IpAddr;

use url::Url;

use crate::failure::{Failure, Outcome};

/// Mirrors of docker.io, in dockerd's words where one is not an address of a registry.
pub fn mirrors(given: &[String]) -> Outcome<Vec<String>> {
    given.iter().filter(|text| !text.is_empty()).map(|text| mirror(text)).collect()
}

/// Registries without TLS: hosts and networks. A single empty one means none.
pub fn insecure(given: &[String]) -> Outcome<Vec<String>> {
    given.iter().filter(|text| !text.is_empty()).map(|text| registry(text)).collect()
}

fn mirror(text: &str) -> Outcome<String> {
    let wrong = |why: String| Failure::new(format!("--registry-mirror: invalid mirror: {why}"));
    let url = Url::parse(text).map_err(|e| wrong(format!("{text:?} is not a valid URI: {e}")))?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err(wrong(format!("unsupported scheme {:?} in {text:?}", url.scheme())));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(format!("path, query, or fragment at end of the URI {text:?}")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(format!("username/password not allowed in URI {:?}", redacted(url))));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Never shows a password on a terminal.
fn redacted(mut url: Url) -> String {
    let _ = url.set_password(Some("xxxxx"));
    url.into()
}

fn registry(text: &str) -> Outcome<String> {
    let wrong = |why: &str| Failure::new(format!("--insecure-registry: insecure registry {text} is not valid: {why}"));
    // dockerd takes a scheme, and leaves it out.
    let bare = text.trim_start_matches("http://").trim_start_matches("https://");
    if let Some((address, bits)) = bare.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| wrong("a network is written as ADDRESS/BITS"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let fits = bits.parse::<u8>().is_ok_and(|bits| bits <= most);
        return if fits { Ok(bare.to_owned()) } else { Err(wrong("a network is written as ADDRESS/BITS")) };
    }
    let (host, port) = match bare.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (bare, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(wrong("invalid port"));
    }
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    if host.is_empty() || host.starts_with('-') || !plain {
        return Err(wrong("invalid host"));
    }
    Ok(bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mirror_may_be() {
        for (text, expected) in [
            ("http://127.0.0.1:5000", Some("http://127.0.0.1:5000")),
            ("https://mirror.example/", Some("https://mirror.example")),
            ("127.0.0.1:5000", None),
            ("ftp://x", None),
            ("http://x/path", None),
            ("http://x/?a=b", None),
            ("http://me:secret@x", None),
        ] {
            assert_eq!(mirror(text).ok().as_deref(), expected, "{text}");
        }
        let said = mirror("http://me:secret@x").expect_err("refused").message;
        assert!(!said.contains("secret"), "{said}");
        assert_eq!(mirrors(&[String::new()]).expect("none"), [] as [&str; 0]);
    }

    #[test]
    fn what_may_be_insecure() {
        for (text, expected) in [
            ("box", Some("box")),
            ("box:5000", Some("box:5000")),
            ("http://box:5000", Some("box:5000")),
            ("[::1]:5000", Some("[::1]:5000")),
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("fd00::/8", Some("fd00::/8")),
            ("10.0.0.0/33", None),
            ("box/8", None),
            ("box:99999", None),
            ("-box", None),
            ("a b", None),
        ] {
            assert_eq!(registry(text).ok().as_deref(), expected, "{text}");
        }
    }
}
