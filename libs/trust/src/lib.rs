//! TLS between the processes of a Boxyard: whom a process trusts, and how it proves itself. The only room that names
//! tokio-rustls.
//!
//! - A process trusts one authority, the cluster's: [`install`] reads it once, first in `main`, and every client in the
//!   process (bus, layer store, byte streams) takes [`client`]. Nothing else is trusted then, no authority of the
//!   system either.
//! - Others than the cluster's own are trusted by a [`Client`] of its own, or by [`known`] and [`anybody`] where another
//!   library makes the connection (registries).
//! - A server is a [`Listener`] with a [`server`] configuration; with an authority for clients, a client without a
//!   certificate of that authority is refused. Who is refused is logged with its address.
//!
//! It must not know what is spoken inside: HTTP, frames or NATS.

mod config;
mod listener;
mod renewal;
mod subject;
mod verifier;
mod words;

use std::path::PathBuf;

pub use config::{Client, Secured, client, connect, install, server};
pub use listener::{Connection, Listener};
pub use rustls::ServerConfig;
pub use subject::common_name;
pub use verifier::{anybody, known};
pub use words::{causes, tls_words};

/// A certificate chain and its private key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading {path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("the certificate {path} cannot be used: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

impl Identity {
    /// Both or none: one file without the other is a mistake, which is told with the names of the flags.
    ///
    /// # Errors
    /// The words for the person who gave one flag only.
    pub fn from_flags(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        flags: (&str, &str),
    ) -> Result<Option<Self>, String> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
            (None, None) => Ok(None),
            _ => Err(format!("{} and {} go together", flags.0, flags.1)),
        }
    }
}
