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
                        Ok(Ok(Some(connection))) => drop(arrivals.send((connection, peer)).await),
                        Ok(Ok(None)) => {}
                        Ok(Err(error)) => tracing::warn!(%peer, %error, "a TLS connection was refused"),
                        Err(_) => tracing::warn!(%peer, "a TLS handshake took too long"),
                    }
                });
            }
            // Out of descriptors: others will close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// None for a client that spoke plain HTTP, or only looked whether the port is open; the former is told.
async fn handshake(mut stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<Option<Connection>> {
    let _ = stream.set_nodelay(true);
    let mut begin = [0u8; 5];
    match stream.peek(&mut begin).await? {
        0 => return Ok(None),
        // The list is that of Go's crypto/tls.
        _ if [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"].contains(&&begin) => {
            stream.write_all(PLAIN_HTTP).await?;
            stream.shutdown().await?;
            // To close with unread bytes would reset the connection under the answer.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            return Ok(None);
        }
        _ => {}
    }
    acceptor.accept(stream).await.map(Some)
}
