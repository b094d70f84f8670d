//! Who is served and who is not, over real sockets with certificates made here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use trust::{Identity, Listener};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signs itself");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { issuer, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        let at = |end: &str| self.folder.path().join(format!("{name}.{end}"));
        replace(&at("pem"), &certificate.pem());
        replace(&at("key"), &key.serialize_pem());
        Identity { certificate: at("pem"), key: at("key") }
    }
}

/// By a rename, as who renews a certificate does.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("written");
    std::fs::rename(new, path).expect("renamed");
}

/// Answers every line with itself, and ends when the client has ended.
async fn echo(identity: &Identity, clients: Option<&Path>) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut listener = Listener::new(socket, trust::server(identity, clients).expect("usable")).expect("listens");
    let address = listener.local_addr();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await;
            tokio::spawn(async move {
                let mut text = String::new();
                if connection.read_to_string(&mut text).await.is_ok() {
                    let _ = connection.write_all(format!("heard {text}").as_bytes()).await;
                    let _ = connection.shutdown().await;
                }
            });
        }
    });
    address
}

/// One process trusts one authority, so all that depends on it is one test.
#[tokio::test]
async fn the_server_is_verified_and_each_direction_ends_by_itself() {
    let (ours, other) = (Authority::new(), Authority::new());
    let unknown = trust::connect("127.0.0.1:1").await.expect_err("nobody is trusted yet");
    assert!(unknown.to_string().contains("--ca"), "{unknown}");
    trust::install(&ours.file()).expect("reads");

    let address = echo(&ours.identity("127.0.0.1"), None).await;
    let mut stream = trust::connect(&address.to_string()).await.expect("the authority and the name are right");
    stream.write_all(b"x").await.expect("sent");
    stream.shutdown().await.expect("this direction ends");
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.expect("the other direction still goes on");
    assert_eq!(heard, "heard x");

    // Another certificate in the same files is used from then on; one whose key does not fit is not.
    let identity = ours.identity("127.0.0.1");
    let address = echo(&identity, None).await;
    let shown = async || {
        let stream = trust::connect(&address.to_string()).await.expect("served");
        stream.get_ref().1.peer_certificates().expect("a certificate was shown")[0].to_vec()
    };
    let first = shown().await;
    let key = std::fs::read_to_string(&identity.key).expect("reads");
    ours.identity("127.0.0.1");
    let second = shown().await;
    assert_ne!(first, second);
    replace(&identity.key, &key);
    assert_eq!(shown().await, second);

    let address = echo(&ours.identity("elsewhere"), None).await;
    trust::connect(&address.to_string()).await.expect_err("a certificate for another name");
    let address = echo(&other.identity("127.0.0.1"), None).await;
    trust::connect(&address.to_string()).await.expect_err("a certificate of another authority");
    // A client without a certificate reads why it is refused, at its first read (TLS 1.3): what it sends before that
    // is taken, so that the connection is not reset under it.
    let address = echo(&ours.identity("127.0.0.1"), Some(&ours.file())).await;
    let mut stream = trust::connect(&address.to_string()).await.expect("the client's side of the handshake");
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        stream.write_all(&[0; 10_000]).await.expect("sent");
        stream.flush().await.expect("sent");
    }
    let error = stream.read_to_string(&mut String::new()).await.expect_err("no certificate was shown");
    let words = trust::causes(&error).find_map(|cause| trust::tls_words(cause, "127.0.0.1"));
    assert_eq!(words.as_deref(), Some("remote error: tls: certificate required"), "{error}");
}

#[tokio::test]
async fn plain_http_is_told_so() {
    let ours = Authority::new();
    let address = echo(&ours.identity("127.0.0.1"), None).await;
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    let end = async { stream.read_to_string(&mut answer).await };
    tokio::time::timeout(std::time::Duration::from_secs(30), end).await.expect("in time").expect("a whole answer");
    assert_eq!(answer, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
}

#[test]
fn what_is_no_certificate_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    for content in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, content).expect("written");
        let error = trust::install(&file).expect_err(content).to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }
    let ours = Authority::new();
    let (one, two) = (ours.identity("one"), ours.identity("two"));
    let mixed = Identity { certificate: one.certificate, key: two.key };
    trust::server(&mixed, None).expect_err("the key is another certificate's");
}
