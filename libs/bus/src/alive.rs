use std::time::Duration;

use async_nats::HeaderMap;
use futures::StreamExt as _;
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::jetstream::{ALIVE, unavailable};
use crate::{Bus, Error};

const PERIOD: Duration = Duration::from_secs(5);
/// The first sign may come before the gateway has made the bucket.
const FIRST_PERIOD: Duration = Duration::from_secs(1);
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
        process: None,
        metrics: Vec::new(),
    }
}

/// What this process counts, as it goes with its sign of life.
pub fn figures() -> Vec<proto::MetricFamily> {
    let sample = |sample: service::metrics::Sample| {
        let service::metrics::Sample { labels, count, buckets, sum_seconds } = sample;
        let labels = labels.into_iter().map(|(name, value)| proto::MetricLabel { name: name.to_owned(), value });
        proto::MetricSample { labels: labels.collect(), count, buckets, sum_seconds }
    };
    let family = |(family, samples): (&'static service::metrics::Family, Vec<_>)| proto::MetricFamily {
        name: family.name.to_owned(),
        help: family.help.to_owned(),
        histogram: family.kind == service::metrics::Kind::Histogram,
        samples: samples.into_iter().map(sample).collect(),
    };
    service::metrics::snapshot().into_iter().map(family).collect()
}

/// What the kernel says of this process.
pub fn process() -> proto::ProcessFigures {
    let service::Process { resident_bytes, cpu_seconds, threads, open_files } = service::process();
    proto::ProcessFigures { resident_bytes, cpu_seconds, threads, open_files }
}

impl Bus {
    /// Says every five seconds, until `cancel`, that this process is alive, and what it counts.
    pub async fn keep_alive(&self, alive: proto::Alive, cancel: CancellationToken) {
        let (_unchanged, info) = watch::channel(alive.info.clone());
        self.keep_alive_with(alive, info, cancel).await;
    }

    /// The same of a process whose `info` changes: each change is said at once.
    ///
    /// The key is published directly with `Nats-TTL`, since a KV update through the client drops the time to live.
    pub async fn keep_alive_with(
        &self,
        mut alive: proto::Alive,
        mut info: watch::Receiver<Vec<u8>>,
        cancel: CancellationToken,
    ) {
        let subject = format!("$KV.{ALIVE}.{}.{}", alive.kind, alive.id);
        let mut pause = FIRST_PERIOD;
        while !cancel.is_cancelled() {
            (alive.process, alive.metrics) = (Some(process()), figures());
            alive.info.clone_from(&info.borrow_and_update());
            let payload: bytes::Bytes = alive.encode_to_vec().into();
            let mut headers = HeaderMap::new();
            headers.insert("Nats-TTL", TTL_SECONDS);
            if let Err(error) = self.client.publish_with_headers(subject.clone(), headers, payload).await {
                tracing::debug!(%error, "no sign of life could be sent");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
                Ok(()) = info.changed() => continue,
            }
            pause = PERIOD;
        }
    }

    /// Every process that gave a sign of life within the time to live.
    ///
    /// # Errors
    /// `Unavailable` when JetStream does not answer.
    pub async fn alive(&self) -> Result<Vec<proto::Alive>, Error> {
        self.alive_of("").await
    }

    /// Those of one kind, `node`; every one for an empty text.
    ///
    /// # Errors
    /// As [`Self::alive`].
    pub async fn alive_of(&self, kind: &str) -> Result<Vec<proto::Alive>, Error> {
        let bucket = self.jetstream.get_key_value(ALIVE).await.map_err(unavailable)?;
        let mut keys = bucket.keys().await.map_err(unavailable)?;
        let mut found = Vec::new();
        while let Some(key) = keys.next().await {
            let key = key.map_err(unavailable)?;
            if !kind.is_empty() && key.split('.').next() != Some(kind) {
                continue;
            }
            let value = bucket.get(key).await.map_err(unavailable)?;
            if let Some(alive) = value.and_then(|value| proto::Alive::decode(value).ok()) {
                found.push(alive);
            }
        }
        Ok(found)
    }
}
