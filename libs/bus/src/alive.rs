use std::time::Duration;

use async_nats::HeaderMap;
use futures::StreamExt as _;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use crate::jetstream::{ALIVE, unavailable};
use crate::{Bus, Error};

const PERIOD: Duration = Duration::from_secs(5);
const TTL_SECONDS: &str = "15";

/// The sign of life of this process, started now. `info` is a NodeInfo or WorkerInfo, encoded, or empty.
pub fn sign_of_life(kind: &str, id: &str, info: Vec<u8>) -> proto::Alive {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    proto::Alive {
        kind: kind.to_owned(),
        id: id.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at_ms: now.as_millis() as i64,
        host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        info,
    }
}

impl Bus {
    /// Says every five seconds, until `cancel`, that this process is alive.
    ///
    /// The key is published directly with `Nats-TTL`, since a KV update through the client drops the time to live.
    pub async fn keep_alive(&self, alive: proto::Alive, cancel: CancellationToken) {
        let subject = format!("$KV.{ALIVE}.{}.{}", alive.kind, alive.id);
        let payload: bytes::Bytes = alive.encode_to_vec().into();
        while !cancel.is_cancelled() {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-TTL", TTL_SECONDS);
            if let Err(error) = self.client.publish_with_headers(subject.clone(), headers, payload.clone()).await {
                tracing::debug!(%error, "no sign of life could be sent");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Every process that gave a sign of life within the time to live.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer.
    pub async fn alive(&self) -> Result<Vec<proto::Alive>, Error> {
        let bucket = self.jetstream.get_key_value(ALIVE).await.map_err(unavailable)?;
        let mut keys = bucket.keys().await.map_err(unavailable)?;
        let mut found = Vec::new();
        while let Some(key) = keys.next().await {
            let value = bucket.get(key.map_err(unavailable)?).await.map_err(unavailable)?;
            if let Some(alive) = value.and_then(|value| proto::Alive::decode(value).ok()) {
                found.push(alive);
            }
        }
        Ok(found)
    }
}
