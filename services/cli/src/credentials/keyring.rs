//! Where credentials are kept: with a server's helper where config.json names one, else in config.json.

use std::collections::BTreeMap;
use std::path::Path;

use super::config_file::ConfigFile;
use super::helper::Helper;
use super::{Credentials, server_of};
use crate::failure::Outcome;
use crate::output;

pub struct Keyring {
    file: ConfigFile,
}

/// What keeping credentials came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// A helper has them.
    ByHelper,
    /// The file had them already.
    AsBefore,
    /// The file has them, readable by whoever reads the file.
    InFile,
}

impl Keyring {
    pub fn open() -> Outcome<Self> {
        Ok(Self { file: ConfigFile::open()? })
    }

    /// For requests that can go on without: a file that cannot be read is a warning, as Docker has it.
    pub fn open_or_warn() -> Self {
        Self::open().unwrap_or_else(|failure| {
            warn(&failure.message);
            Self { file: ConfigFile::empty() }
        })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What is known at a server; none: nothing.
    pub fn get(&self, server: &str) -> Outcome<Option<Credentials>> {
        match self.file.helper_of(server) {
            Some(helper) => Helper::new(helper).get(server),
            None => self.file.get(server),
        }
    }

    /// For a registry's host; without where there is nothing or it cannot be read.
    pub fn of_host(&self, domain: &str) -> Credentials {
        let server = server_of(domain);
        self.get(server)
            .unwrap_or_else(|failure| {
                warn(&failure.message);
                None
            })
            .unwrap_or_default()
    }

    /// Everything, by server. What cannot be read is a warning.
    pub fn all(&self) -> BTreeMap<String, Credentials> {
        let mut servers = self.file.servers();
        servers.extend(self.file.servers_with_helpers());
        if let Some(helper) = self.file.helper_of_all() {
            match Helper::new(helper).list() {
                Ok(listed) => servers.extend(listed.into_keys()),
                Err(failure) => warn(&failure.message),
            }
        }
        servers.sort();
        servers.dedup();
        let mut all = BTreeMap::new();
        for server in servers {
            match self.get(&server) {
                Ok(Some(found)) => drop(all.insert(server, found)),
                Ok(None) => {}
                Err(failure) => warn(&failure.message),
            }
        }
        all
    }

    /// Keeps what a login proved.
    pub fn store(&mut self, credentials: &Credentials) -> Outcome<Kept> {
        let server = &credentials.server;
        if let Some(helper) = self.file.helper_of(server) {
            Helper::new(helper).store(credentials)?;
            // Docker's file names the server without its secret.
            self.file.put(server, &Credentials::default())?;
            return Ok(Kept::ByHelper);
        }
        if self.file.get(server).ok().flatten().as_ref() == Some(credentials) {
            return Ok(Kept::AsBefore);
        }
        self.file.put(server, credentials)?;
        Ok(Kept::InFile)
    }

    /// Forgets a server in both places.
    pub fn erase(&mut self, server: &str) -> Outcome {
        if let Some(helper) = self.file.helper_of(server) {
            Helper::new(helper).erase(server)?;
        }
        self.file.remove(server)
    }
}

fn warn(message: &str) {
    output::error(format!("WARNING: {message}\n").as_bytes());
}
