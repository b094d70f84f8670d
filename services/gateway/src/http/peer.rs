//! Who sends a request, as far as builds are shared fairly among users: a name, not a right.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::serve::IncomingStream;
use http::request::Parts;
use nix::unistd::{Uid, User};
use tokio::net::{TcpListener, UnixListener};

use super::tls;

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

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        stream.io().peer_cred().map_or(Self::Unknown, |credentials| Self::Local(credentials.uid()))
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Self::Unknown
    }
}

impl Connected<IncomingStream<'_, tls::Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, tls::Listener>) -> Self {
        let certificate = stream.io().get_ref().1.peer_certificates().and_then(|chain| chain.first());
        certificate.and_then(trust::common_name).map_or(Self::Unknown, Self::Certified)
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
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().map_or(Peer::Unknown, |info| info.0.clone());
        Ok(Self(peer.name()))
    }
}
