use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::renewal::Renewed;
use crate::{Error, Identity};

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
pub async fn connect(address: &str) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidInput, what);
    let config = client().ok_or_else(|| invalid(format!("tls:{address}: this process trusts nobody; give it --ca")))?;
    let (host, _) = address.rsplit_once(':').ok_or_else(|| invalid(format!("no port in {address}")))?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| invalid(format!("{host}: {error}")))?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}

/// A server's side. A certificate that is replaced in its file is used from the next handshake on. With `clients`, an authority in a PEM file, only clients with a certificate of it are served.
///
/// # Errors
/// `File` when a file cannot be read, `Unusable` when key and certificate don't fit.
pub fn server(identity: &Identity, clients: Option<&Path>) -> Result<Arc<ServerConfig>, Error> {
    let renewed = Renewed::open(identity)?;
    let unusable = |reason: String| Error::Unusable { path: identity.certificate.clone(), reason };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3");
    let builder = match clients {
        Some(authority) => {
            let roots = Arc::new(roots(authority)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(error.to_string()))?)
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

pub fn unreadable(path: &Path, reason: impl ToString) -> Error {
    Error::File { path: path.to_owned(), reason: reason.to_string() }
}
