use std::collections::HashSet;
use std::time::Duration;

use bus::{Bus, Target, calls};

use super::{App, Outcome};

const SECONDS: u32 = 60;
const RENEW: Duration = Duration::from_secs(20);

/// Keeps the blobs that are written or asked for under it: renewed as long as this lives, ended when it is dropped,
/// so that a request that fails early or is cancelled leaves nothing pinned.
pub struct Lease {
    pub id: String,
    bus: Bus,
    renewing: tokio::task::JoinHandle<()>,
}

impl App {
    pub async fn lease(&self, owner: &str) -> Outcome<Lease> {
        let request = proto::LeaseCreate { owner: owner.to_owned(), ttl_seconds: SECONDS };
        let id = self.bus.call::<calls::LeaseCreate>(&Target::Store, &request).await?.id;
        let renewing = tokio::spawn(renew(self.bus.clone(), id.clone()));
        Ok(Lease { id, bus: self.bus.clone(), renewing })
    }

    /// Keeps these blobs of the layer store under a lease; gives those that are not there.
    pub async fn pin(&self, lease: &str, digests: Vec<String>) -> Outcome<HashSet<String>> {
        if digests.is_empty() {
            return Ok(HashSet::new());
        }
        let pin = proto::BlobsPin { lease: lease.to_owned(), digests };
        Ok(self.bus.call::<calls::BlobsPin>(&Target::Store, &pin).await?.missing.into_iter().collect())
    }
}

async fn renew(bus: Bus, id: String) {
    loop {
        tokio::time::sleep(RENEW).await;
        let request = proto::LeaseRenew { id: id.clone(), ttl_seconds: SECONDS };
        if let Err(error) = bus.call::<calls::LeaseRenew>(&Target::Store, &request).await {
            // Two more tries fit into its time.
            tracing::warn!(%error, lease = id, "a lease could not be renewed");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        let (bus, id) = (self.bus.clone(), std::mem::take(&mut self.id));
        // Outside of a runtime (at the end of the process) it ends by itself when its time is over.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = bus.call::<calls::LeaseEnd>(&Target::Store, &proto::Lease { id }).await {
                    tracing::warn!(%error, "a lease could not be ended");
                }
            });
        }
    }
}
