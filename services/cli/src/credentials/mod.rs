//! Who a person is at a registry: found in the client's config.json or asked of a credential helper, and shown to the
//! daemon as Docker's client shows it.

mod config_file;
mod helper;
mod keyring;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value};

pub use config_file::folder as config_folder;
pub use keyring::{Kept, Keyring};

/// The name under which Docker Hub's credentials are kept.
pub use model::INDEX_SERVER as HUB;

/// What is known of a person at one registry; all empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Stands in for a password; a registry gives it at a login.
    pub identity_token: String,
    /// Sent to the registry as it is.
    pub registry_token: String,
    /// The key they are kept by: [`HUB`] or a host.
    pub server: String,
}

impl Credentials {
    /// X-Registry-Auth: base64url of JSON.
    pub fn header(&self) -> String {
        URL_SAFE.encode(self.json().to_string())
    }

    /// The Engine API's AuthConfig; what is empty is left out.
    pub fn json(&self) -> Value {
        let Self { username, password, identity_token, registry_token, server } = self;
        let fields = [
            ("username", username),
            ("password", password),
            ("serveraddress", server),
            ("identitytoken", identity_token),
            ("registrytoken", registry_token),
        ];
        let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
        Value::Object(given.map(|(name, text)| (name.to_owned(), text.as_str().into())).collect())
    }
}

impl From<Credentials> for distribution::registry::Credentials {
    fn from(credentials: Credentials) -> Self {
        let Credentials { username, password, identity_token, registry_token, server: _ } = credentials;
        Self { username, password, identity_token, registry_token }
    }
}

/// X-Registry-Config of a build: all credentials, by server.
pub fn build_header() -> String {
    let all = Keyring::open_or_warn().all();
    let map: Map<String, Value> = all.into_iter().map(|(server, found)| (server, found.json())).collect();
    URL_SAFE.encode(Value::Object(map).to_string())
}

/// X-Registry-Auth for a registry's host. What cannot be read is a warning; the request goes on without.
pub fn auth_header(domain: &str) -> String {
    Keyring::open_or_warn().of_host(domain).header()
}

/// The key of a registry's host.
pub fn server_of(domain: &str) -> &str {
    if domain == "docker.io" { HUB } else { domain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_is_shown() {
        assert_eq!(Credentials::default().header(), "e30=");
        let me = Credentials { username: "me".into(), password: "p?>".into(), ..Credentials::default() };
        let shown = me.header();
        assert!(!shown.contains(['+', '/']), "{shown}");
        let decoded = URL_SAFE.decode(shown).expect("base64url");
        assert_eq!(String::from_utf8_lossy(&decoded), r#"{"username":"me","password":"p?>"}"#);
    }

    #[test]
    fn keys() {
        assert_eq!(server_of("docker.io"), HUB);
        assert_eq!(server_of("box"), "box");
    }
}
