//! Results that the build will likely want, since the last build of the same kind had them: they are asked for at once
//! while the Dockerfile is read, so that a build whose steps are all known waits for none of them.

use std::collections::HashMap;

use bus::{Target, calls};
use tokio::sync::OnceCell;

use super::Graph;
use crate::failure::Failure;
use crate::patience::patiently;

/// Results by key, whose layers are kept for this build.
#[derive(Default)]
pub struct Likely {
    keys: Vec<String>,
    found: OnceCell<HashMap<String, proto::StepRecord>>,
}

impl Likely {
    pub fn new(keys: Vec<String>) -> Self {
        Self { keys, found: OnceCell::new() }
    }

    pub fn find(&self, key: &str) -> Option<proto::StepRecord> {
        self.found.get()?.get(key).cloned()
    }
}

impl Graph {
    /// Asks for the likely results. Where that fails each step asks for its own.
    pub(super) async fn look_ahead(&self) {
        if self.likely.keys.is_empty() || self.options.no_cache {
            return;
        }
        let known = self.likely.found.get_or_try_init(|| self.likely_results()).await;
        if let Err(error) = known {
            tracing::debug!(%error, build_id = %self.executor.build_id, "likely results were not looked up");
        }
    }

    async fn likely_results(&self) -> Result<HashMap<String, proto::StepRecord>, Failure> {
        let records = self.look_up(self.likely.keys.clone()).await?;
        let layers: Vec<proto::Layer> = records.iter().flat_map(|record| record.layers.clone()).collect();
        self.executor.layers.pin(&layers).await?;
        let mut found = HashMap::new();
        for record in records {
            if self.executor.layers.are_pinned(&record.layers).await {
                found.insert(record.key.clone(), record);
            }
        }
        Ok(found)
    }

    /// Results that are known, in no order; their layers may be gone.
    pub(super) async fn look_up(&self, keys: Vec<String>) -> Result<Vec<proto::StepRecord>, Failure> {
        let request = proto::ResultLookup {
            build_id: self.executor.build_id.clone(),
            keys,
            lease: self.executor.layers.lease.clone(),
        };
        let bus = &self.executor.worker.bus;
        Ok(patiently(|| bus.call::<calls::ResultLookup>(&Target::Gateway, &request)).await?.records)
    }
}
