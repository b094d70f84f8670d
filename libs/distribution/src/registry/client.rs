use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::redirect;
use url::Url;

use super::endpoints::{Attempts, Endpoint, Settings, authority};
use super::{Error, FromRegistry, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_REDIRECTS: usize = 10;

/// All registries, as the settings of this process see them. Cheap to clone.
#[derive(Clone)]
pub struct Registries {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    /// For plain HTTP on this machine; its connections outlive a call.
    loopback: OnceLock<reqwest::Client>,
}

impl Registries {
    pub fn new(settings: Settings) -> Self {
        Self { inner: Arc::new(Inner { settings, loopback: OnceLock::new() }) }
    }

    /// Where `host` ("docker.io", "127.0.0.1:5000") may be reached, best first; mirrors are for reading only.
    ///
    /// # Errors
    /// `Settings` when a mirror or the host makes no URL.
    pub async fn attempts(&self, host: &str, with_mirrors: bool) -> Result<Attempts, Error> {
        self.inner.settings.attempts(host, with_mirrors).await
    }

    /// Does `work` at the addresses that [`Self::attempts`] gives, until one serves or refuses.
    ///
    /// # Errors
    /// The outcome of the last address that was asked; as [`Self::attempts`].
    pub async fn at_first<T, E: FromRegistry, F: Future<Output = Result<T, E>>>(
        &self,
        host: &str,
        with_mirrors: bool,
        work: impl Fn(Endpoint) -> F,
    ) -> Result<T, E> {
        let mut attempts = self.attempts(host, with_mirrors).await?;
        while let Some(endpoint) = attempts.next() {
            let outcome = work(endpoint).await;
            match outcome.as_ref().err().and_then(E::registry) {
                Some(error) if attempts.may_go_on(error) => {
                    tracing::info!(%error, registry = host, "the next address of the registry is tried");
                }
                _ => return outcome,
            }
        }
        Err(Error::Settings(format!("no endpoints found for {host}")).into())
    }

    pub fn has_mirrors(&self) -> bool {
        !self.inner.settings.mirrors.is_empty()
    }

    /// A client for one address of a registry. Certificates are read anew, so that new ones count at once.
    pub(super) fn client(&self, endpoint: &Endpoint) -> Result<reqwest::Client, Error> {
        let is_loopback = is_loopback(&endpoint.base);
        if endpoint.base.scheme() == "http" && is_loopback {
            if let Some(client) = self.inner.loopback.get() {
                return Ok(client.clone());
            }
            let client = build(tls::config(None, true)?, true)?;
            return Ok(self.inner.loopback.get_or_init(|| client).clone());
        }
        let folder = self.inner.settings.certs_dir.join(authority(&endpoint.base));
        build(tls::config(Some(&folder), endpoint.verifies)?, is_loopback)
    }

    /// Whether the settings allow to speak without TLS to this address.
    pub(super) async fn is_insecure(&self, url: &Url) -> bool {
        self.inner.settings.is_insecure(&authority(url)).await
    }

    /// A client for the token service that a registry names; the same one where it is the same host.
    pub(super) async fn token_client(&self, endpoint: &Endpoint, realm: &Url) -> Result<reqwest::Client, Error> {
        let mut base = realm.clone();
        base.set_path("/");
        base.set_query(None);
        let is_same = base.origin() == endpoint.base.origin();
        let verifies = if is_same { endpoint.verifies } else { !self.is_insecure(realm).await };
        self.client(&Endpoint { base, is_mirror: false, verifies })
    }
}

/// As Go has it: what is on this machine is never asked for through a proxy.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn build(tls: rustls::ClientConfig, is_loopback: bool) -> Result<reqwest::Client, Error> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::limited(MAX_REDIRECTS))
        .referer(false)
        .user_agent(concat!("boxyard/", env!("CARGO_PKG_VERSION")));
    let builder = if is_loopback { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| Error::Settings(format!("making a client of registries: {error}")))
}
