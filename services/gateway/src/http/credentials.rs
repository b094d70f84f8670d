//! The user's credentials for registries, as clients send them in headers: base64 of JSON. They go on with the call
//! that needs them and into no log.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use serde_json::Value;

use crate::app::registry::Credentials;
use crate::app::{Failure, Outcome};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// X-Registry-Auth. What is absent, empty or unreadable is nobody, as for Docker.
pub fn of_request(headers: &HeaderMap) -> Option<proto::RegistryAuth> {
    auth(&decode(headers, "X-Registry-Auth")?)
}

/// A push's credentials, which very old clients sent as the body.
pub fn of_push(headers: &HeaderMap, body: &[u8]) -> Outcome<Option<proto::RegistryAuth>> {
    if headers.get("X-Registry-Auth").is_some_and(|header| !header.is_empty()) {
        return Ok(of_request(headers));
    }
    let why = match serde_json::from_slice::<Value>(body) {
        Ok(config) => return Ok(auth(&config)),
        // Nobody, as for Docker from 23 on.
        Err(_) if body.is_empty() => return Ok(None),
        Err(error) => error.to_string(),
    };
    Err(Failure::invalid(format!("bad parameters and missing X-Registry-Auth: {why}")))
}

/// X-Registry-Config of a build: credentials by the name of their registry.
pub fn of_build(headers: &HeaderMap) -> Credentials {
    let Some(Value::Object(config)) = decode(headers, "X-Registry-Config") else { return Credentials::default() };
    let by_address = config.into_iter().filter_map(|(registry, config)| Some((registry, auth(&config)?))).collect();
    Credentials { by_address, session: None }
}

/// The fields that speak for a user; nobody where all are empty.
pub fn auth(config: &Value) -> Option<proto::RegistryAuth> {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let auth = proto::RegistryAuth {
        username: text("username"),
        password: text("password"),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    };
    (auth != proto::RegistryAuth::default()).then_some(auth)
}

fn decode(headers: &HeaderMap, name: &str) -> Option<Value> {
    let header = headers.get(name)?.as_bytes();
    let bytes = GeneralPurpose::new(&URL_SAFE, LENIENT)
        .decode(header)
        .or_else(|_| GeneralPurpose::new(&STANDARD, LENIENT).decode(header));
    serde_json::from_slice(&bytes.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().expect("a header"))])
    }

    #[test]
    fn only_what_speaks_for_a_user_counts() {
        let encode = |text: &str| GeneralPurpose::new(&URL_SAFE, LENIENT).encode(text);
        for (value, user) in [
            (encode(r#"{"username":"u","password":"p?>","serveraddress":"x"}"#), Some("u")),
            (encode(r#"{"username":"u"}"#).trim_end_matches('=').to_owned(), Some("u")),
            (base64::engine::general_purpose::STANDARD.encode(r#"{"username":"u","password":"???"}"#), Some("u")),
            (encode("{}"), None),
            (encode("null"), None),
            (encode(r#"{"username":5}"#), None),
            (encode("no json"), None),
            ("%%%".to_owned(), None),
            (String::new(), None),
        ] {
            let read = of_request(&headers("x-registry-auth", &value));
            assert_eq!(read.as_ref().map(|auth| auth.username.as_str()), user, "{value}");
        }
        assert!(of_request(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_push_without_credentials_is_nobodys() {
        assert!(of_push(&headers("x-registry-auth", "e30="), b"").is_ok());
        assert!(of_push(&HeaderMap::new(), br#"{"username":"u"}"#).is_ok_and(|auth| auth.is_some()));
        assert!(of_push(&HeaderMap::new(), b"").is_ok_and(|auth| auth.is_none()));
        assert!(of_push(&HeaderMap::new(), b"{bad").is_err());
    }
}
