use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// A normalised image name, `docker.io/library/busybox:latest` (distribution's reference grammar,
/// with Docker's rules for what a short name means).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    HexName(String),
}

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
/// docker.io's old address, which clients keep its credentials under.
pub const INDEX_SERVER: &str = "https://index.docker.io/v1/";

impl ImageRef {
    /// Registry host, `docker.io` for short names.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Path within the registry, `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The name as Docker shows it in the REPOSITORY column: `busybox`, `localhost:5000/x`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// [`Self::familiar_name`] with tag and digest where they are set.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// `docker.io/library/busybox`, without tag and digest.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    pub fn has_tag_or_digest(&self) -> bool {
        self.tag.is_some() || self.digest.is_some()
    }

    /// The tag `latest` where neither a tag nor a digest is set.
    pub fn or_latest(mut self) -> Self {
        if !self.has_tag_or_digest() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// # Errors
    /// `Format` when `tag` is not a tag (`[\w][\w.-]{0,127}`).
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        self.tag = Some(tag.to_owned());
        Ok(self)
    }

    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    pub fn without_tag(mut self) -> Self {
        self.tag = None;
        self
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.full_name()))
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if is_hex_id(text) {
            return Err(ReferenceError::HexName(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| ReferenceError::Format)?)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        // A colon after the last slash starts the tag; one before it belongs to the registry's port.
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (remainder.as_str(), None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) && is_path(&path.to_ascii_lowercase()) {
            return Err(ReferenceError::Uppercase(rest_name(&domain, path)));
        }
        if !is_domain(&domain) || !is_path(path) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain, path: path.to_owned(), tag: tag.map(str::to_owned), digest })
    }
}

fn rest_name(domain: &str, path: &str) -> String {
    if domain == DEFAULT_DOMAIN { path.to_owned() } else { format!("{domain}/{path}") }
}

/// The first component is a registry when it has a dot or a colon, an upper-case letter, or is `localhost`.
fn split_domain(name: &str) -> (String, String) {
    let (domain, remainder) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest.to_owned())
        }
        _ => (DEFAULT_DOMAIN, name.to_owned()),
    };
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    let official = domain == DEFAULT_DOMAIN && !remainder.contains('/');
    let remainder = if official { format!("{OFFICIAL}{remainder}") } else { remainder };
    (domain.to_owned(), remainder)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let port_ok = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(ipv6) => !ipv6.is_empty() && ipv6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    port_ok && host_ok
}

/// Components of `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`; components joined by `/`.
fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_path_component)
}

fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    bytes
        .split(|&b| alphanumeric(b))
        .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|&b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|&b| word(b))
        && bytes.iter().all(|&b| word(b) || matches!(b, b'.' | b'-'))
}

/// The host in a registry's address, `registry.example:5000` of `https://registry.example:5000/v1/`.
pub fn registry_host(address: &str) -> &str {
    let bare = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    bare.split('/').next().unwrap_or_default()
}

/// 64 hex digits are an id, never a name.
pub fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        for (address, host) in [
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000"),
            ("box:5000", "box:5000"),
        ] {
            assert_eq!(registry_host(address), host);
        }
    }

    #[test]
    fn names_are_normalised() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
            ("user/app", "docker.io/user/app", "user/app"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost:5000/a/b/c:v1", "localhost:5000/a/b/c:v1", "localhost:5000/a/b/c:v1"),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("a__b/c-----d.e", "docker.io/a__b/c-----d.e", "a__b/c-----d.e"),
        ] {
            let reference: ImageRef = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, familiar), "{text}");
            assert_eq!(reference.familiar().parse::<ImageRef>(), Ok(reference), "{text} comes back");
        }
    }

    #[test]
    fn wrong_names_are_refused_in_dockers_words() {
        for (text, words) in [
            ("", "invalid reference format"),
            ("a b", "invalid reference format"),
            (":tag", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a:-x", "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("../etc", "invalid reference format"),
            ("UPPER", "invalid reference format: repository name (library/UPPER) must be lowercase"),
            ("localhost:5000/App", "invalid reference format: repository name (localhost:5000/App) must be lowercase"),
        ] {
            assert_eq!(text.parse::<ImageRef>().map_err(|e| e.to_string()), Err(words.to_owned()), "{text:?}");
        }
        assert!("a".repeat(64).parse::<ImageRef>().is_err());
        assert_eq!(format!("x/{}", "a".repeat(250)).parse::<ImageRef>(), Err(ReferenceError::TooLong));
    }

    #[test]
    fn latest_is_added_only_where_nothing_is_said() {
        let check = |text: &str| text.parse::<ImageRef>().expect("valid").or_latest().familiar();
        assert_eq!(check("busybox"), "busybox:latest");
        assert_eq!(check("busybox:1"), "busybox:1");
    }
}
