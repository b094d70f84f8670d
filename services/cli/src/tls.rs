//! TLS towards a daemon, with Docker's flags and environment (docker CLI, `cli/flags/options.go`): any of `--tls`,
//! `--tlsverify`, DOCKER_TLS and DOCKER_TLS_VERIFY turns it on, the files lie in DOCKER_CERT_PATH or the client's folder.

use std::fs::File;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::commands::os_words;
use crate::credentials;
use crate::failure::{Failure, Outcome};

#[derive(Args, Debug, Clone, Default)]
pub struct Flags {
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    tls: bool,
    /// Trust certs signed only by this CA [default: ca.pem in DOCKER_CERT_PATH or ~/.docker]
    #[arg(long)]
    tlscacert: Option<PathBuf>,
    /// Path to TLS certificate file [default: cert.pem beside it]
    #[arg(long)]
    tlscert: Option<PathBuf>,
    /// Path to TLS key file [default: key.pem beside it]
    #[arg(long)]
    tlskey: Option<PathBuf>,
    /// Use TLS and verify the remote
    #[arg(
        long,
        value_name = "bool",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        hide_possible_values = true
    )]
    tlsverify: Option<bool>,
}

impl Flags {
    /// `--tlsverify=false` turns TLS on as well: the daemon is only not verified then.
    pub fn are_on(&self) -> bool {
        self.tls || self.tlsverify.is_some() || is_set("DOCKER_TLS") || is_set("DOCKER_TLS_VERIFY")
    }

    /// This side of a connection to the daemon; none where it is a plain one.
    ///
    /// # Errors
    /// A file that was named, or the authority's in any case, cannot be read or used.
    pub fn client(&self) -> Outcome<Option<trust::Client>> {
        if !self.are_on() {
            return Ok(None);
        }
        let folder = std::env::var_os("DOCKER_CERT_PATH").filter(|path| !path.is_empty());
        let folder = folder.map_or_else(credentials::config_folder, PathBuf::from);
        let authority = named(self.tlscacert.clone().unwrap_or_else(|| folder.join("ca.pem")))?;
        let own = |given: &Option<PathBuf>, name: &str| match given {
            Some(path) => named(path.clone()).map(Some),
            None => Ok(Some(folder.join(name)).filter(|path| path.exists())),
        };
        // One without the other is passed over, as by Docker: the daemon says what it misses.
        let pair = own(&self.tlscert, "cert.pem")?.zip(own(&self.tlskey, "key.pem")?);
        let identity = pair.map(|(certificate, key)| trust::Identity { certificate, key });
        let verifies = self.tlsverify.unwrap_or_else(|| is_set("DOCKER_TLS_VERIFY"));
        let client = trust::Client::new(&authority, identity.as_ref(), verifies);
        client.map(Some).map_err(|error| unusable(&format!("failed to retrieve context tls info: {error}")))
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// A file that must be there.
fn named(path: PathBuf) -> Outcome<PathBuf> {
    match File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => {
            Err(unusable(&format!("unable to resolve docker endpoint: open {}: {}", path.display(), os_words(&error))))
        }
    }
}

fn unusable(why: &str) -> Failure {
    Failure::new(format!("Failed to initialize: {why}"))
}

/// What TLS says of a connection, in Docker's words; none where the trouble is another.
pub fn words(error: &(dyn std::error::Error + 'static), host: &str) -> Option<String> {
    let words = trust::causes(error).find_map(|cause| trust::tls_words(cause, host))?;
    Some(match words.starts_with("x509: ") {
        true => format!("tls: failed to verify certificate: {words}"),
        false => words,
    })
}
