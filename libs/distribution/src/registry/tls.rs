use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::Error;

/// Where systems keep the certificates that they trust; the first that is there counts.
const SYSTEM_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS towards one registry. `folder` is the host's own in the certs folder, where there is one.
///
/// # Errors
/// `Settings` when a file of `folder` cannot be used.
pub(super) fn config(folder: Option<&Path>, verifies: bool) -> Result<ClientConfig, Error> {
    let own = folder.map(Own::read).transpose()?.unwrap_or_default();
    let verifier = match verifies {
        true => trust::known(system(), own.authorities)
            .map_err(|error| Error::Settings(format!("a registry's CA cannot be used: {error}")))?,
        false => trust::anybody(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has both versions of TLS")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match own.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| Error::Settings(format!("client certificate of a registry: {error}"))),
    }
}

/// The files of one registry (dockerd's certs.d).
#[derive(Default)]
struct Own {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Own {
    fn read(folder: &Path) -> Result<Self, Error> {
        let mut own = Self::default();
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(own) };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        let ends = |file: &Path, suffix: &str| file.extension().is_some_and(|extension| extension == suffix);
        for file in files {
            if ends(&file, "crt") {
                own.authorities.extend(certificates(&file)?);
            } else if ends(&file, "cert") {
                let key = file.with_extension("key");
                if !key.exists() {
                    return Err(Error::Settings(format!(
                        "missing key {} for client certificate {}. CA certificates must use the extension .crt",
                        key.display(),
                        file.display()
                    )));
                }
                own.identity = Some((certificates(&file)?, unreadable(&key, PrivateKeyDer::from_pem_file(&key))?));
            }
        }
        Ok(own)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    unreadable(file, found)
}

fn unreadable<T, E: std::fmt::Display>(file: &Path, read: Result<T, E>) -> Result<T, Error> {
    read.map_err(|error| Error::Settings(format!("reading {}: {error}", file.display())))
}

/// What the system trusts; a certificate among many that cannot be read is passed over.
fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let files = named.into_iter().chain(SYSTEM_FILES.map(PathBuf::from));
    if let Some(found) = files.filter_map(|file| CertificateDer::pem_file_iter(file).ok()).next() {
        roots.add_parsable_certificates(found.filter_map(Result::ok));
    }
    roots
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use url::Url;

    use super::super::endpoints::Endpoint;
    use super::super::{Access, Registries, Settings};

    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
        folder: tempfile::TempDir,
    }

    impl Authority {
        /// Named after itself, so that it is its own server too.
        fn new() -> Self {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "test");
            let issuer =
                CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signs itself");
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
            std::fs::write(folder.path().join("ca.key.pem"), issuer.key().serialize_pem()).expect("written");
            Self { issuer, folder }
        }

        fn identity(&self, name: &str, last_year: i32) -> trust::Identity {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            params.not_after = date_time_ymd(last_year, 1, 1);
            let certificate = params.signed_by(&key, &self.issuer).expect("signs");
            let at = |end: &str| self.folder.path().join(format!("{name}-{last_year}.{end}"));
            std::fs::write(at("pem"), certificate.pem()).expect("written");
            std::fs::write(at("key"), key.serialize_pem()).expect("written");
            trust::Identity { certificate: at("pem"), key: at("key") }
        }
    }

    /// A registry that says yes to everybody whom its TLS lets in.
    async fn serve(identity: &trust::Identity, clients: Option<&Authority>) -> SocketAddr {
        let authority = clients.map(|authority| authority.folder.path().join("ca.pem"));
        let config = trust::server(identity, authority.as_deref()).expect("a server");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let _ = stream.read(&mut [0; 4096]).await?;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").await?;
                    stream.shutdown().await
                });
            }
        });
        address
    }

    /// Connects as to any other host: that loopback is taken on trust would hide what is tested here.
    async fn connect(address: SocketAddr, certs: &std::path::Path, verifies: bool) -> Result<(), String> {
        let settings = Settings { certs_dir: certs.to_owned(), ..Settings::default() };
        let base = Url::parse(&format!("https://{address}/")).expect("a URL");
        let endpoint = Endpoint { base, is_mirror: false, verifies };
        let connected = Registries::new(settings).connect(endpoint, "app", Default::default(), Access::Pull).await;
        connected.map(drop).map_err(|error| error.to_string())
    }

    /// The certs folder of one registry with these files.
    fn certs(address: SocketAddr, files: &[(&str, &std::path::Path)]) -> tempfile::TempDir {
        let certs = tempfile::tempdir().expect("a folder");
        let own = certs.path().join(address.to_string());
        std::fs::create_dir(&own).expect("made");
        for (name, from) in files {
            std::fs::copy(from, own.join(name)).expect("copied");
        }
        certs
    }

    #[tokio::test]
    async fn only_a_trusted_certificate_of_that_name_is_taken() {
        let (authority, other) = (Authority::new(), Authority::new());
        let (ca, other_ca) = (authority.folder.path().join("ca.pem"), other.folder.path().join("ca.pem"));
        let itself = trust::Identity { certificate: ca.clone(), key: authority.folder.path().join("ca.key.pem") };
        let unknown = "x509: certificate signed by unknown authority";
        for (what, identity, trusted, words) in [
            ("signed", authority.identity("127.0.0.1", 2099), Some(&ca), None),
            ("signed by nobody", authority.identity("127.0.0.1", 2099), None, Some(unknown)),
            ("signed by another", authority.identity("127.0.0.1", 2099), Some(&other_ca), Some(unknown)),
            ("its own authority", itself.clone(), Some(&ca), None),
            ("an authority that is not known", itself.clone(), Some(&other_ca), Some(unknown)),
            (
                "of another name",
                authority.identity("other.example", 2099),
                Some(&ca),
                Some("x509: certificate is not valid for 127.0.0.1"),
            ),
            (
                "too old",
                authority.identity("127.0.0.1", 2001),
                Some(&ca),
                Some("x509: certificate has expired or is not yet valid"),
            ),
        ] {
            let address = serve(&identity, None).await;
            let files: Vec<_> = trusted.iter().map(|file| ("ca.crt", file.as_path())).collect();
            let certs = certs(address, &files);
            let outcome = connect(address, certs.path(), true).await;
            let expected = words.map_or(Ok(()), |words| Err(format!("Get \"https://{address}/v2/\": {words}")));
            assert_eq!(outcome, expected, "{what}");
            assert_eq!(connect(address, certs.path(), false).await, Ok(()), "{what}, and nobody looks");
        }
    }

    #[tokio::test]
    async fn a_client_shows_its_certificate() {
        let authority = Authority::new();
        let address = serve(&authority.identity("127.0.0.1", 2099), Some(&authority)).await;
        let client = authority.identity("client", 2099);
        let ca = authority.folder.path().join("ca.pem");
        let all = [
            ("ca.crt", ca.as_path()),
            ("client.cert", client.certificate.as_path()),
            ("client.key", client.key.as_path()),
        ];
        assert_eq!(connect(address, certs(address, &all).path(), true).await, Ok(()));
        assert!(connect(address, certs(address, &all[..1]).path(), true).await.is_err(), "without one it got in");
        let error = connect(address, certs(address, &all[..2]).path(), true).await.expect_err("half of it");
        assert!(error.starts_with("missing key ") && error.contains("must use the extension .crt"), "{error}");
    }
}
