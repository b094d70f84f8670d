//! Results of the graph builder's steps: what they take in the layer store, which go, and the cap that they are held under.
//!
//! A result that goes is only a row: its layers are let go of, and the layer store unlinks those that nothing else names.
//! A build that uses one has pinned its layers under a lease, and loses nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bus::{Target, calls};
use metadata::CachedStep;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::filters::Filters;
use super::{App, Outcome};

/// Results that come one after the other are looked at together.
const GATHER: Duration = Duration::from_millis(500);
/// A use is noted at most so often: one that looks older may be of a build that runs.
const NOTED_MS: i64 = 60_000;
/// Without a cap of its own the cache has this part of the store's disk.
const DISK_PART: u64 = 5;

/// Which results shall go.
pub struct Prune {
    pub filters: Filters,
    /// Also results that images share: only their rows go.
    pub all: bool,
    /// As soon as no more than this is left, no more go.
    pub keep_bytes: u64,
    /// Nothing goes, and it is said what would.
    pub is_dry: bool,
}

/// What went, or would.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub keys: Vec<String>,
    pub bytes: u64,
}

/// The cache as `docker system df` shows it.
pub struct CacheUsage {
    pub rows: Vec<Value>,
    /// What the results take besides what images share.
    pub bytes: u64,
}

/// All results beside what else names their layers.
struct Cache {
    /// The one used longest ago first.
    steps: Vec<CachedStep>,
    /// Digests that images and containers name.
    shared: HashSet<String>,
    /// What was used since may be of a build that runs.
    in_use_since_ms: Option<i64>,
}

impl App {
    async fn cache(&self) -> Outcome<Cache> {
        let since = self.db.builds_run_since().await?;
        Ok(Cache {
            steps: self.db.cached_steps().await?,
            shared: self.blobs_of_images().await?.0,
            in_use_since_ms: since.map(|since| since - NOTED_MS),
        })
    }

    pub async fn cache_usage(&self) -> Outcome<CacheUsage> {
        let cache = self.cache().await?;
        let rows = cache.steps.iter().map(|step| {
            json!({
                "ID": step.key, "Parent": "", "Type": "regular", "Description": step.description,
                "InUse": cache.is_in_use(step), "Shared": cache.is_shared(step), "Size": cache.own_bytes(step),
                "CreatedAt": engine_api::time(step.created_ms * 1_000_000),
                "LastUsedAt": engine_api::time(step.last_used_ms * 1_000_000)
            })
        });
        Ok(CacheUsage { rows: rows.collect(), bytes: cache.bytes() })
    }

    /// Lets results go, the one used longest ago first; none that a running build may use.
    pub async fn prune_cache(&self, wanted: &Prune) -> Outcome<Pruned> {
        let now = self.db.now_ms();
        let until = wanted.filters.until_ms(now)?;
        let unused = wanted.filters.moment_ms("unused-for", now)?;
        let before = match (until, unused) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let (shared, private) = (wanted.filters.flag("shared")?, wanted.filters.flag("private")?);
        let in_use = wanted.filters.flag("inuse")?;
        let cache = self.cache().await?;
        let matches = |step: &CachedStep| {
            let is_shared = cache.is_shared(step);
            before.is_none_or(|before| step.last_used_ms < before)
                && (wanted.all || shared == Some(true) || !is_shared)
                && shared.is_none_or(|wanted| wanted == is_shared)
                && private.is_none_or(|wanted| wanted != is_shared)
                && in_use != Some(true)
                && wanted.filters.any("id", |id| step.key.starts_with(id))
                && wanted.filters.any("type", |kind| kind == "regular")
                && wanted.filters.any("description", |text| step.description.contains(text))
        };
        let going = cache.going(matches, wanted.keep_bytes);
        match wanted.is_dry {
            true => Ok(going.pruned()),
            false => self.let_go(going).await,
        }
    }

    async fn let_go(&self, going: Going) -> Outcome<Pruned> {
        let mut pruned = Pruned::default();
        let mut blobs = Vec::new();
        for (step, bytes) in going.0 {
            if self.db.forget_cached_step(&step).await? {
                pruned.bytes += bytes;
                pruned.keys.push(step.key);
                blobs.extend(step.layers.into_iter().map(|layer| layer.digest));
            }
        }
        if !blobs.is_empty() {
            self.release_blobs(blobs).await;
        }
        Ok(pruned)
    }

    async fn hold_cap(&self, cap_bytes: u64) -> Outcome<()> {
        // Also what a running build has used: it has its layers under a lease, and those are the last in the order.
        let cache = Cache { in_use_since_ms: None, ..self.cache().await? };
        let going = cache.going(|_| true, cap_bytes);
        let pruned = self.let_go(going).await?;
        if !pruned.keys.is_empty() {
            tracing::info!(
                count = pruned.keys.len(),
                bytes = pruned.bytes,
                cap_bytes,
                "results of steps went for the cap"
            );
        }
        Ok(())
    }

    /// The cap that was given, else a part of the store's disk.
    async fn cap_of_cache(&self, given: u64) -> Outcome<u64> {
        if given != 0 {
            return Ok(given);
        }
        let usage = self.bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await?;
        Ok((usage.blob_bytes + usage.free_bytes) / DISK_PART)
    }
}

/// Holds the results of steps under their cap (0: a fifth of the store's disk) until `cancel`, while builds go on.
pub async fn keep_cache_cap(app: Arc<App>, cap_bytes: u64, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = app.cache_grew.notified() => {}
        }
        tokio::time::sleep(GATHER).await;
        let held = async { app.hold_cap(app.cap_of_cache(cap_bytes).await?).await };
        if let Err(error) = held.await {
            tracing::warn!(%error, "the cache of build steps may be past its cap");
        }
    }
}

/// Results that go, each with the bytes that go with it.
struct Going(Vec<(CachedStep, u64)>);

impl Going {
    fn pruned(self) -> Pruned {
        let bytes = self.0.iter().map(|(_, bytes)| bytes).sum();
        Pruned { keys: self.0.into_iter().map(|(step, _)| step.key).collect(), bytes }
    }
}

impl Cache {
    fn is_in_use(&self, step: &CachedStep) -> bool {
        self.in_use_since_ms.is_some_and(|since| step.last_used_ms >= since)
    }

    /// Whether images have all that it holds: nothing is free when it goes.
    fn is_shared(&self, step: &CachedStep) -> bool {
        !step.layers.is_empty() && step.layers.iter().all(|layer| self.shared.contains(&layer.digest))
    }

    fn own_bytes(&self, step: &CachedStep) -> u64 {
        step.layers.iter().filter(|layer| !self.shared.contains(&layer.digest)).map(|layer| layer.size).sum()
    }

    /// What all take together besides what images share; a layer of several results counts once.
    fn bytes(&self) -> u64 {
        self.layers().values().map(|(bytes, _)| bytes).sum()
    }

    /// Layers that no image has: their bytes, and how many results hold them.
    fn layers(&self) -> HashMap<&str, (u64, usize)> {
        let mut layers = HashMap::new();
        for layer in self.steps.iter().flat_map(|step| &step.layers) {
            if !self.shared.contains(&layer.digest) {
                layers.entry(layer.digest.as_str()).or_insert((layer.size, 0)).1 += 1;
            }
        }
        layers
    }

    /// Those that `matches`, the one used longest ago first, until no more than `keep_bytes` are left; with 0 all of them.
    fn going(&self, matches: impl Fn(&CachedStep) -> bool, keep_bytes: u64) -> Going {
        let mut layers = self.layers();
        let mut left = self.bytes();
        let mut going = Vec::new();
        for step in self.steps.iter().filter(|step| matches(step) && !self.is_in_use(step)) {
            if keep_bytes > 0 && left <= keep_bytes {
                break;
            }
            let mut freed = 0;
            for layer in &step.layers {
                if let Some((bytes, holders)) = layers.get_mut(layer.digest.as_str()) {
                    *holders -= 1;
                    freed += if *holders == 0 { *bytes } else { 0 };
                }
            }
            left -= freed;
            going.push((step.clone(), freed));
        }
        Going(going)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results by key, time of last use and layers of ten bytes each.
    fn cache(steps: &[(&str, i64, &[&str])], shared: &[&str], in_use_since_ms: Option<i64>) -> Cache {
        let layer = |digest: &&str| metadata::Layer {
            diff_id: (*digest).to_owned(),
            media_type: String::new(),
            digest: (*digest).to_owned(),
            size: 10,
            content_bytes: 10,
        };
        let step = |(key, last_used_ms, layers): &(&str, i64, &[&str])| CachedStep {
            key: (*key).to_owned(),
            description: String::new(),
            layers: layers.iter().map(layer).collect(),
            created_ms: 0,
            last_used_ms: *last_used_ms,
        };
        let shared = shared.iter().map(|digest| (*digest).to_owned()).collect();
        Cache { steps: steps.iter().map(step).collect(), shared, in_use_since_ms }
    }

    #[test]
    fn what_was_used_longest_ago_goes_until_the_rest_fits() {
        let steps: &[(&str, i64, &[&str])] =
            &[("a", 1, &["x"]), ("b", 2, &["x", "y"]), ("c", 3, &["image"]), ("d", 4, &["z"]), ("e", 5, &[])];
        for (keep, in_use, keys, bytes) in [
            (0, None, &["a", "b", "c", "d", "e"][..], 30),
            (30, None, &[], 0),
            // A layer goes with the last result that holds it.
            (25, None, &["a", "b"], 20),
            (10, None, &["a", "b"], 20),
            (9, None, &["a", "b", "c", "d"], 30),
            (1, Some(3), &["a", "b"], 20),
            (1, Some(0), &[], 0),
        ] {
            let cache = cache(steps, &["image"], in_use);
            assert_eq!(cache.bytes(), 30);
            let pruned = cache.going(|_| true, keep).pruned();
            assert_eq!(
                (pruned.keys.as_slice(), pruned.bytes),
                (&keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>()[..], bytes),
                "{keep}"
            );
        }
    }

    #[test]
    fn only_what_matches_goes() {
        let steps: &[(&str, i64, &[&str])] = &[("a", 1, &["x"]), ("b", 2, &["y"])];
        let cache = cache(steps, &["y"], None);
        assert_eq!(cache.going(|step| step.key == "b", 0).pruned(), Pruned { keys: vec!["b".to_owned()], bytes: 0 });
        assert!(cache.is_shared(&cache.steps[1]) && !cache.is_shared(&cache.steps[0]));
    }
}
