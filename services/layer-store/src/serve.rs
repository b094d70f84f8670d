//! The listeners: the one of Boxyard's own processes, and the registry for users.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::{Passwords, tls};

/// The registry for users.
#[derive(clap::Args)]
pub struct Registry {
    /// Address of the registry for users, `ip:port`: what is pushed there, and nothing else.
    #[arg(long = "registry", id = "registry", env = "BOXYARD_REGISTRY", value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// File of users with bcrypt hashes, as `htpasswd -B` writes it; without it everybody may push and pull.
    #[arg(long, env = "BOXYARD_REGISTRY_HTPASSWD", requires = "registry")]
    registry_htpasswd: Option<PathBuf>,
    /// Certificate (PEM) of `--registry`, which then speaks https.
    #[arg(long, env = "BOXYARD_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, env = "BOXYARD_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Allow `--registry` off loopback without passwords or without TLS.
    #[arg(long, env = "BOXYARD_REGISTRY_INSECURE")]
    registry_insecure: bool,
}

/// Where the registry listens, with what certificate, and for whom.
pub struct Checked {
    pub address: SocketAddr,
    pub identity: Option<trust::Identity>,
    pub passwords: Option<Passwords>,
}

impl Registry {
    /// The same, once it makes sense; none when there is no registry for users.
    ///
    /// # Errors
    /// An address that others reach without passwords and TLS; files that are of no use.
    pub fn checked(self) -> anyhow::Result<Option<Checked>> {
        let Self { address, registry_htpasswd, tls_cert, tls_key, registry_insecure } = self;
        let Some(address) = address else { return Ok(None) };
        let guarded = registry_htpasswd.is_some() && tls_cert.is_some();
        anyhow::ensure!(
            address.ip().is_loopback() || guarded || registry_insecure,
            "--registry {address}: others reach this address; give --registry-htpasswd, --tls-cert and --tls-key, or \
             --registry-insecure where everybody on the network may push"
        );
        let identity = trust::Identity::from_flags(tls_cert, tls_key, ("--tls-cert", "--tls-key"));
        let passwords = registry_htpasswd.map(Passwords::open).transpose()?;
        Ok(Some(Checked { address, identity: identity.map_err(anyhow::Error::msg)?, passwords }))
    }
}

/// Serves until `cancel`, then ends what is running.
pub async fn serve(
    address: SocketAddr,
    identity: Option<trust::Identity>,
    router: Router,
    cancel: CancellationToken,
) -> anyhow::Result<JoinHandle<std::io::Result<()>>> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let stopped = cancel.cancelled_owned();
    Ok(match identity {
        Some(identity) => {
            let listener = tls::Listener::new(listener, trust::server(&identity, None)?)?;
            let server = axum::serve(listener, router).with_graceful_shutdown(stopped);
            tokio::spawn(async move { server.await })
        }
        None => {
            let listener = listener.tap_io(|connection| {
                // Small answers must not wait for an acknowledgement; without it they are only slower.
                let _ = connection.set_nodelay(true);
            });
            let server = axum::serve(listener, router).with_graceful_shutdown(stopped);
            tokio::spawn(async move { server.await })
        }
    })
}
