use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

/// What a server shows of itself, and which clients it takes.
pub type Config = Arc<trust::ServerConfig>;

/// A TLS listener as axum wants it.
pub struct Listener(trust::Listener);

impl Listener {
    /// # Errors
    /// What the operating system says when the listener has no address.
    pub fn new(listener: TcpListener, config: Config) -> std::io::Result<Self> {
        Ok(Self(trust::Listener::new(listener, config)?))
    }
}

impl axum::serve::Listener for Listener {
    type Io = trust::Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.0.local_addr())
    }
}
