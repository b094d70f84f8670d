//! Connections of clients, and who is at their other end, as far as builds are shared fairly among users: a name, not a
//! right.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::serve::IncomingStream;
use http::request::Parts;
use nix::unistd::{Uid, User};
use tokio::net::{TcpListener, UnixListener};

use super::buildkit::Results;
use super::tls;

/// A connection of a client.
#[derive(Clone)]
pub struct Connection {
    peer: Peer,
    /// What its builds have made, until it closes.
    pub results: Arc<Results>,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A process of this machine.
    Local(u32),
    /// The common name of a client's certificate.
    Certified(String),
    Unknown,
}

/// What a user is called: the name of a certificate, of a local user, or `anonymous`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub String);

impl From<Peer> for Connection {
    fn from(peer: Peer) -> Self {
        Self { peer, results: Arc::default() }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        stream.io().peer_cred().map_or(Peer::Unknown, |credentials| Peer::Local(credentials.uid())).into()
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Connection {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Peer::Unknown.into()
    }
}

impl Connected<IncomingStream<'_, tls::Listener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, tls::Listener>) -> Self {
        let certificate = stream.io().get_ref().1.peer_certificates().and_then(|chain| chain.first());
        certificate.and_then(trust::common_name).map_or(Peer::Unknown, Peer::Certified).into()
    }
}

impl Peer {
    fn name(&self) -> String {
        match self {
            Self::Local(uid) => match User::from_uid(Uid::from_raw(*uid)) {
                Ok(Some(user)) => user.name,
                _ => format!("uid {uid}"),
            },
            Self::Certified(name) => name.clone(),
            Self::Unknown => "anonymous".to_owned(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UserName {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<Connection>>().map(|info| info.0.peer.name());
        Ok(Self(peer.unwrap_or_else(|| Peer::Unknown.name())))
    }
}
