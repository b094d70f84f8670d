//! The three files that the API on TCP is served with.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::config::canonical;
use crate::failure::Outcome;

#[derive(Args, Serialize, Deserialize, Debug, Clone, Default)]
pub struct Files {
    /// Authority (PEM) whose certificates clients of --host tcp://... must show
    #[arg(long, requires_all = ["tlscert", "tlskey"])]
    pub tlscacert: Option<PathBuf>,
    /// Certificate (PEM) that --host tcp://... shows
    #[arg(long, requires_all = ["tlscacert", "tlskey"])]
    pub tlscert: Option<PathBuf>,
    /// Private key (PEM) of --tlscert
    #[arg(long, requires_all = ["tlscacert", "tlscert"])]
    pub tlskey: Option<PathBuf>,
}

impl Files {
    /// Those that `cluster init` has made.
    pub fn of_cluster(folder: &Path) -> Self {
        let at = |name: &str| Some(folder.join(name));
        Self { tlscacert: at("ca.pem"), tlscert: at("api.pem"), tlskey: at("api.key") }
    }

    pub fn are_given(&self) -> bool {
        self.tlscert.is_some()
    }

    /// The same files from any folder; each must be there.
    pub fn resolved(&self) -> Outcome<Self> {
        Ok(Self {
            tlscacert: canonical(self.tlscacert.as_deref())?,
            tlscert: canonical(self.tlscert.as_deref())?,
            tlskey: canonical(self.tlskey.as_deref())?,
        })
    }

    /// As flags of the gateway, or of `up` itself.
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        [("--tlscacert", &self.tlscacert), ("--tlscert", &self.tlscert), ("--tlskey", &self.tlskey)]
            .into_iter()
            .filter_map(|(flag, path)| Some((flag, path.as_ref()?.display().to_string())))
            .collect()
    }
}
