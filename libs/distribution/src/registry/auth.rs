use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::{Url, form_urlencoded};

use super::challenge::{Bearer, Challenge};
use super::endpoints::Endpoint;
use super::repository::{read_answer, read_bounded};
use super::retry::retried;
use super::{Error, Registries, transport};

/// Tokens without a time, or with less, live so long (the specification's minimum).
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
/// A token that ends within this is not used any more.
const MARGIN: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Who asks, for token services that keep a list.
const CLIENT_ID: &str = "docker";

/// What a registry wants to know of the user. It is for one call and never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Exchanged for bearer tokens (OAuth2, grant `refresh_token`).
    pub identity_token: String,
    /// Sent as it is.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::default() { "Credentials(none)" } else { "Credentials(secret)" })
    }
}

impl Credentials {
    fn basic(&self) -> Option<HeaderValue> {
        if self.username.is_empty() || self.password.is_empty() {
            return None;
        }
        let pair = STANDARD.encode(format!("{}:{}", self.username, self.password));
        secret(format!("Basic {pair}"))
    }
}

/// Says what goes into `Authorization` for one registry, for as long as one call lasts.
pub(super) struct Authorizer {
    registries: Registries,
    endpoint: Endpoint,
    credentials: Credentials,
    /// A login: a token that lasts is asked for.
    is_login: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    /// By the scopes that they are good for.
    tokens: HashMap<String, Token>,
    /// What a login gets to keep.
    identity_token: Option<String>,
}

struct Token {
    text: String,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl Authorizer {
    pub(super) fn new(registries: Registries, endpoint: Endpoint, credentials: Credentials, is_login: bool) -> Self {
        // A mirror is another's registry: it gets nothing of what is for docker.io.
        let credentials = if endpoint.is_mirror { Credentials::default() } else { credentials };
        Self { registries, endpoint, credentials, is_login, state: Mutex::default() }
    }

    /// Remembers what the registry wants.
    pub(super) async fn learn(&self, challenge: Challenge) {
        self.state.lock().await.challenge = Some(challenge);
    }

    /// After a refusal: forgets the token for `scopes`. False when asking again would be the same request.
    pub(super) async fn renew(&self, challenge: Option<Challenge>, scopes: &[String]) -> bool {
        let Some(challenge) = challenge else { return false };
        if !self.credentials.registry_token.is_empty() {
            return false;
        }
        let mut state = self.state.lock().await;
        let knew = state.challenge.replace(challenge);
        let had_token = state.tokens.remove(&scopes.join(" ")).is_some();
        knew != state.challenge || had_token
    }

    /// What a login gets to keep instead of the password.
    pub(super) async fn identity_token(&self) -> String {
        self.state.lock().await.identity_token.clone().unwrap_or_default()
    }

    /// The header for a request that needs `scopes`; none before the registry asked for anything.
    pub(super) async fn authorization(&self, scopes: &[String]) -> Result<Option<HeaderValue>, Error> {
        // Held while a token is got, so that many requests at once get one token.
        let mut state = self.state.lock().await;
        let bearer = match &state.challenge {
            None => return Ok(None),
            Some(_) if !self.credentials.registry_token.is_empty() => {
                return Ok(secret(format!("Bearer {}", self.credentials.registry_token)));
            }
            Some(Challenge::Basic) => return self.credentials.basic().map(Some).ok_or(Error::NoCredentials),
            Some(Challenge::Bearer(bearer)) => bearer.clone(),
        };
        let key = scopes.join(" ");
        if let Some(token) = state.tokens.get(&key)
            && token.until > Instant::now() + MARGIN
        {
            return Ok(secret(format!("Bearer {}", token.text)));
        }
        let (realm, client) = self.token_service(&bearer).await?;
        let answer = retried(|| self.fetch(&client, &realm, &bearer, scopes)).await?;
        let text = if answer.access_token.is_empty() { answer.token } else { answer.access_token };
        if text.is_empty() {
            return Err(Error::NoToken("authorization server did not include a token in the response".to_owned()));
        }
        let header = secret(format!("Bearer {text}"))
            .ok_or_else(|| Error::NoToken("authorization server gave a token that no header can hold".to_owned()))?;
        if !answer.refresh_token.is_empty() {
            state.identity_token = Some(answer.refresh_token);
        }
        let life = Duration::from_secs(answer.expires_in.min(86_400)).max(SHORTEST_LIFE);
        state.tokens.insert(key, Token { text, until: Instant::now() + life });
        Ok(Some(header))
    }

    /// Where tokens are given, and how it is reached.
    async fn token_service(&self, bearer: &Bearer) -> Result<(Url, reqwest::Client), Error> {
        let realm = Url::parse(&bearer.realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let realm = realm.ok_or_else(|| Error::NoToken(format!("unable to parse auth realm {:?}", bearer.realm)))?;
        let is_secret = self.credentials != Credentials::default();
        if is_secret && self.endpoint.demotes(&realm) && !self.registries.is_insecure(&realm).await {
            let words =
                format!("auth realm {realm} is without TLS, unlike its registry: no credentials are sent there");
            return Err(Error::NoToken(words));
        }
        let client = self.registries.token_client(&self.endpoint, &realm).await?;
        Ok((realm, client))
    }

    async fn fetch(
        &self,
        client: &reqwest::Client,
        realm: &Url,
        bearer: &Bearer,
        scopes: &[String],
    ) -> Result<TokenAnswer, Error> {
        let (method, request) = if self.credentials.identity_token.is_empty() {
            ("GET", self.by_password(client, realm.clone(), bearer, scopes))
        } else {
            ("POST", self.by_identity(client, realm.clone(), bearer, scopes))
        };
        let answer = read_answer(method, realm, request.send()).await?;
        let bytes = read_bounded(answer, method, realm, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::NoToken(format!("unable to decode token response: {error}")))
    }

    /// `GET realm?service=…&scope=…` (the distribution project's token specification).
    fn by_password(
        &self,
        client: &reqwest::Client,
        mut url: Url,
        bearer: &Bearer,
        scopes: &[String],
    ) -> reqwest::RequestBuilder {
        let basic = self.credentials.basic();
        {
            let mut query = url.query_pairs_mut();
            if !bearer.service.is_empty() {
                query.append_pair("service", &bearer.service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            if self.is_login {
                query.append_pair("offline_token", "true").append_pair("client_id", CLIENT_ID);
            }
            if basic.is_some() {
                query.append_pair("account", &self.credentials.username);
            }
        }
        let request = client.get(url);
        basic.into_iter().fold(request, |request, basic| request.header(AUTHORIZATION, basic))
    }

    /// `POST realm` with the identity token (OAuth2, RFC 6749 section 6).
    fn by_identity(
        &self,
        client: &reqwest::Client,
        url: Url,
        bearer: &Bearer,
        scopes: &[String],
    ) -> reqwest::RequestBuilder {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", &bearer.service)
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", &self.credentials.identity_token)
            .finish();
        client.post(url).header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
    }

    /// Names the request that a token was wanted for.
    pub(super) fn wanted_for(error: Error, method: &str, url: &Url) -> Error {
        match error {
            error @ Error::Settings(_) => error,
            error => Error::Token { request: transport::request(method, url), source: Box::new(error) },
        }
    }
}

fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_show() {
        let credentials = Credentials { username: "me".to_owned(), password: "word".to_owned(), ..Default::default() };
        assert_eq!(format!("{credentials:?}"), "Credentials(secret)");
        let header = credentials.basic().expect("a header");
        assert_eq!((header.to_str().ok(), header.is_sensitive()), (Some("Basic bWU6d29yZA=="), true));
        assert!(Credentials { username: "me".to_owned(), ..Default::default() }.basic().is_none());
    }
}
