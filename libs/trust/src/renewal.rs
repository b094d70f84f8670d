use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::{certificates, key, provider, unusable};
use crate::{Error, Identity};

/// How a server proves itself: by what its files hold at each handshake, so that a renewed certificate needs no restart.
#[derive(Debug)]
pub struct Renewed {
    identity: Identity,
    current: Mutex<(Stamp, Arc<CertifiedKey>)>,
}

/// Certificate and key: which file it is, and when it was written; none for one that is not there.
type Stamp = [Option<(u64, SystemTime)>; 2];

impl Renewed {
    /// # Errors
    /// `File` when a file cannot be read, `Unusable` when key and certificate don't fit.
    pub fn open(identity: &Identity) -> Result<Self, Error> {
        // Before the reading: what is written meanwhile is read again.
        let stamp = stamp(identity);
        let current = Mutex::new((stamp, Arc::new(read(identity)?)));
        Ok(Self { identity: identity.clone(), current })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.identity);
        if now != current.0 {
            match read(&self.identity) {
                Ok(key) => {
                    tracing::info!(certificate = %self.identity.certificate.display(), "a renewed certificate is used");
                    *current = (now, Arc::new(key));
                }
                // Certificate and key are two files: one of them is still to come, or a person made a mistake.
                Err(error) => tracing::warn!(%error, "the certificate of before is used on"),
            }
        }
        current.1.clone()
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn stamp(identity: &Identity) -> Stamp {
    let written = |path: &Path| std::fs::metadata(path).and_then(|file| Ok((file.ino(), file.modified()?))).ok();
    [written(&identity.certificate), written(&identity.key)]
}

fn read(identity: &Identity) -> Result<CertifiedKey, Error> {
    let chain = certificates(&identity.certificate)?;
    let certified = CertifiedKey::from_der(chain, key(identity)?, &provider());
    certified.map_err(|error| unusable(&identity.certificate, &error))
}
