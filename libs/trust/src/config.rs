use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::renewal::Renewed;
use crate::words::words;
use crate::{Error, Identity, verifier};

static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Makes the authority of a PEM file the one that this process' clients trust. The first call counts.
///
/// # Errors
/// `File` when it cannot be read or holds no certificate.
pub fn install(authority: &Path) -> Result<(), Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_root_certificates(roots(authority)?)
        .with_no_client_auth();
    let _ = CLIENT.set(Arc::new(config));
    Ok(())
}

/// What this process' clients trust; none before [`install`].
pub fn client() -> Option<Arc<ClientConfig>> {
    CLIENT.get().cloned()
}

/// Dials `host:port` and returns when the server has proved that it is `host`.
///
/// # Errors
/// `InvalidInput` when the address is malformed or nothing is trusted; else what the network or TLS says.
pub async fn connect(address: &str) -> std::io::Result<Secured> {
    let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
    let config = client().ok_or_else(|| invalid(format!("tls:{address}: this process trusts nobody; give it --ca")))?;
    let (host, _) = address.rsplit_once(':').ok_or_else(|| invalid(format!("no port in {address}")))?;
    Client(config).join(TcpStream::connect(address).await?, host).await
}

/// A client's side towards servers that are not of this process' cluster, such as a daemon that a person names.
#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

/// A connection that its server has passed the handshake of.
pub type Secured = tokio_rustls::client::TlsStream<TcpStream>;

impl Client {
    /// Trusts an authority, in a PEM file, or where it does not verify, whoever answers. `identity` is shown to servers
    /// that want one.
    ///
    /// # Errors
    /// `File` when a file cannot be read, `Unusable` when it cannot be used.
    pub fn new(authority: &Path, identity: Option<&Identity>, verifies: bool) -> Result<Self, Error> {
        let pinned = certificates(authority)?;
        let verifier = match verifies {
            true => verifier::known(RootCertStore::empty(), pinned).map_err(|error| unusable(authority, &error))?,
            false => verifier::anybody(),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(certificates(&identity.certificate)?, key(identity)?)
                .map_err(|error| unusable(&identity.certificate, &error))?,
        };
        Ok(Self(Arc::new(config)))
    }

    /// Brings a connection through the handshake with `host`.
    ///
    /// # Errors
    /// `InvalidInput` for a host that is no name; else what the network or TLS says.
    pub async fn join(&self, stream: TcpStream, host: &str) -> std::io::Result<Secured> {
        stream.set_nodelay(true)?;
        TlsConnector::from(self.0.clone()).connect(server_name(host)?, stream).await
    }
}

fn server_name(host: &str) -> std::io::Result<ServerName<'static>> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    name.map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("{host}: {error}")))
}

/// A server's side. A certificate that is replaced in its file is used from the next handshake on. With `clients`, an
/// authority in a PEM file, only clients with a certificate of it are served.
///
/// # Errors
/// `File` when a file cannot be read, `Unusable` when key and certificate don't fit.
pub fn server(identity: &Identity, clients: Option<&Path>) -> Result<Arc<ServerConfig>, Error> {
    let renewed = Renewed::open(identity)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3");
    let builder = match clients {
        Some(authority) => {
            let roots = Arc::new(roots(authority)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let unusable = |error: rustls::server::VerifierBuilderError| Error::Unusable {
                path: authority.to_owned(),
                reason: error.to_string(),
            };
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(renewed));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(authority: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate).map_err(|error| unreadable(authority, error))?;
    }
    Ok(roots)
}

/// At least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unreadable(path, "it holds no certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable(path, error)),
    }
}

pub fn key(identity: &Identity) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| unreadable(&identity.key, error))
}

pub fn unusable(path: &Path, error: &rustls::Error) -> Error {
    Error::Unusable { path: path.to_owned(), reason: words(error, "") }
}

pub fn unreadable(path: &Path, reason: impl ToString) -> Error {
    Error::File { path: path.to_owned(), reason: reason.to_string() }
}
