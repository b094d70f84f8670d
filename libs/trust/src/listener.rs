use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// One client that has passed the handshake.
pub type Connection = tokio_rustls::server::TlsStream<TcpStream>;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client that was refused may take to read why.
const LINGER: Duration = Duration::from_secs(2);
/// Clients that have passed the handshake and wait to be served.
const WAITING: usize = 64;
/// What Go's server answers to plain HTTP on its TLS port, which clients of Docker know.
const PLAIN_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Accepts connections and brings them through the handshake, each beside the others: a slow client holds up nobody.
pub struct Listener {
    arrivals: mpsc::Receiver<(Connection, SocketAddr)>,
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Listener {
    /// # Errors
    /// What the operating system says when the listener has no address.
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, arrivals) = mpsc::channel(WAITING);
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(config), sender)).abort_handle();
        Ok(Self { arrivals, address, accepting })
    }

    /// The next client. Cancel safe.
    pub async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.arrivals.recv().await {
            Some(arrival) => arrival,
            // The accepting task ends only with its runtime.
            None => std::future::pending().await,
        }
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, arrivals: mpsc::Sender<(Connection, SocketAddr)>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (acceptor, arrivals) = (acceptor.clone(), arrivals.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(PATIENCE, handshake(stream, acceptor)).await {
                        Ok(Ok(connection)) => drop(arrivals.send((connection, peer)).await),
                        Ok(Err(refused)) => refused.end(peer).await,
                        Err(_) => tracing::warn!(%peer, "a TLS handshake took too long"),
                    }
                });
            }
            // Out of descriptors: others will close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A client that is not served.
struct Refused {
    stream: TcpStream,
    /// None for one that spoke plain HTTP, which is told, or only looked whether the port is open.
    why: Option<std::io::Error>,
}

impl Refused {
    /// Lets the client read what it was told: to close with unread bytes would reset the connection under the answer.
    async fn end(mut self, peer: SocketAddr) {
        if let Some(error) = self.why {
            tracing::warn!(%peer, %error, "a TLS connection was refused");
        }
        let _ = self.stream.shutdown().await;
        let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut self.stream, &mut tokio::io::sink())).await;
    }
}

async fn handshake(mut stream: TcpStream, acceptor: TlsAcceptor) -> Result<Connection, Refused> {
    let _ = stream.set_nodelay(true);
    let mut begin = [0u8; 5];
    match stream.peek(&mut begin).await {
        Ok(0) => return Err(Refused { stream, why: None }),
        // The list is that of Go's crypto/tls.
        Ok(_) if [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"].contains(&&begin) => {
            let why = stream.write_all(PLAIN_HTTP).await.err();
            return Err(Refused { stream, why });
        }
        Ok(_) => {}
        Err(error) => return Err(Refused { stream, why: Some(error) }),
    }
    let accepted = acceptor.accept(stream).into_fallible().await;
    accepted.map_err(|(error, stream)| Refused { stream, why: Some(error) })
}
