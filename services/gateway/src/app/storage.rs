//! What workers and nodes keep on their machines: asked of each that is alive, told by none of its own accord.

use std::time::Duration;

use bus::{Target, calls};

use super::workers::KIND;
use super::{App, Outcome};

/// Who has not answered by then is left out.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one process keeps.
pub struct Keeper {
    /// `build-worker` or `node`.
    pub kind: String,
    pub id: String,
    pub host: String,
    /// None where it did not answer.
    pub storage: Option<proto::MachineStorage>,
}

impl App {
    /// All workers, and with `nodes` all nodes, that give a sign of life; in the order of their kinds and ids.
    pub async fn keepers(&self, nodes: bool) -> Outcome<Vec<Keeper>> {
        self.keepers_of(nodes, "").await
    }

    /// The same, who also say whether they have this layer.
    pub async fn keepers_of(&self, nodes: bool, diff_id: &str) -> Outcome<Vec<Keeper>> {
        let signs = self.signs().await?.into_iter().filter(|sign| sign.is_alive);
        let asked = signs.filter(|sign| sign.alive.kind == KIND || (nodes && sign.alive.kind == "node"));
        let asks = asked.map(|sign| async move {
            let proto::Alive { kind, id, host, .. } = sign.alive;
            let storage = tokio::time::timeout(PATIENCE, self.ask_storage(&kind, &id, diff_id)).await;
            let storage = match storage {
                Ok(Ok(storage)) => Some(storage),
                Ok(Err(error)) => {
                    tracing::info!(%error, kind, id, "what a machine keeps is not known");
                    None
                }
                Err(_) => None,
            };
            Keeper { kind, id, host, storage }
        });
        Ok(futures::future::join_all(asks).await)
    }

    async fn ask_storage(&self, kind: &str, id: &str, diff_id: &str) -> Result<proto::MachineStorage, bus::Error> {
        let ask = proto::StorageAsk { diff_id: diff_id.to_owned() };
        match kind {
            KIND => self.bus.call::<calls::WorkerStorage>(&Target::Worker(id.to_owned()), &ask).await,
            _ => self.bus.call::<calls::NodeStorage>(&Target::Node(id.to_owned()), &ask).await,
        }
    }

    /// Has workers drop their copies of cache mounts that are not stored any more. One that is not there now does so when a
    /// step of its own wants the cache.
    pub async fn forget_copies(&self, keys: Vec<String>) {
        let signs = self.signs().await.unwrap_or_default();
        let workers = signs.into_iter().filter(|sign| sign.is_alive && sign.alive.kind == KIND);
        let request = proto::CachesForget { keys };
        let asks = workers.map(|sign| {
            let request = &request;
            async move {
                let target = Target::Worker(sign.alive.id.clone());
                let asked =
                    tokio::time::timeout(PATIENCE, self.bus.call::<calls::CachesForget>(&target, request)).await;
                let error = match asked {
                    Ok(Ok(_)) => return,
                    Ok(Err(error)) => error.to_string(),
                    // It does so when it comes to it.
                    Err(_) => "no answer".to_owned(),
                };
                tracing::info!(error, worker = sign.alive.id, "a worker keeps copies of caches that are gone");
            }
        });
        futures::future::join_all(asks).await;
    }
}
