//! Results of the graph builder's steps and what cache mounts hold: what they take in the layer store, which go, and the cap
//! that they are held under together.
//!
//! What goes is only a row: its blobs are let go of, and the layer store unlinks those that nothing else names. A build
//! that uses one has pinned its blobs under a lease, and loses nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bus::{Target, calls};
use metadata::{CacheMount, CachedStep};
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
    pub keep: Keep,
    /// Nothing goes, and it is said what would.
    pub is_dry: bool,
}

/// How much of the cache may stay, as BuildKit counts it; without any of the three nothing stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// As soon as no more than this is left, no more go.
    pub reserved_bytes: u64,
    /// The cache may take this much; 0: no such bound.
    pub max_used_bytes: u64,
    /// What goes past the bound above makes this much of the store's disk free; 0: no such bound.
    pub min_free_bytes: u64,
}

impl Keep {
    /// How much stays of a cache of `used` bytes on a disk with `free` bytes; nothing was said of it without any bound.
    fn bytes(self, used: u64, free: u64) -> Option<u64> {
        let given = |bytes: u64| (bytes > 0).then_some(bytes);
        let rest = given(self.min_free_bytes).map(|wanted| used.saturating_sub(wanted.saturating_sub(free)));
        let kept = given(self.max_used_bytes).into_iter().chain(rest).min();
        kept.max(given(self.reserved_bytes))
    }
}

/// What went, or would.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub keys: Vec<String>,
    pub bytes: u64,
}

/// A record of the cache, as BuildKit's disk usage and `docker system df` show them.
#[derive(Clone, Debug)]
pub struct CacheRecord {
    pub key: String,
    /// `regular`, or `exec.cachemount`.
    pub kind: &'static str,
    pub description: String,
    /// What it takes besides what images share.
    pub bytes: u64,
    /// What it takes with that.
    pub whole_bytes: u64,
    pub is_in_use: bool,
    /// Images have all that it holds.
    pub is_shared: bool,
    pub created_ms: i64,
    pub last_used_ms: i64,
}

/// The cache as a whole.
pub struct CacheUsage {
    /// The one used longest ago first.
    pub records: Vec<CacheRecord>,
    /// What they take together besides what images share; a blob of several counts once.
    pub bytes: u64,
}

/// What is kept for builds to come.
#[derive(Clone, Debug)]
enum What {
    Step(CachedStep),
    Mount(CacheMount),
}

/// A record with the blobs that it holds.
#[derive(Clone, Debug)]
struct Record {
    what: What,
    /// Digests and sizes.
    blobs: Vec<(String, u64)>,
}

/// All records beside what else names their blobs.
struct Cache {
    /// The one used longest ago first.
    records: Vec<Record>,
    /// Digests that images and containers name.
    shared: HashSet<String>,
    /// What was used since may be of a build that runs.
    in_use_since_ms: Option<i64>,
}

impl Record {
    fn step(step: CachedStep) -> Self {
        let blobs = step.layers.iter().map(|layer| (layer.digest.clone(), layer.size)).collect();
        Self { what: What::Step(step), blobs }
    }

    fn mount(mount: CacheMount) -> Self {
        let tree = (mount.tree.clone(), mount.tree_bytes);
        Self { blobs: mount.packs.iter().cloned().chain([tree]).collect(), what: What::Mount(mount) }
    }

    fn key(&self) -> &str {
        match &self.what {
            What::Step(step) => &step.key,
            What::Mount(mount) => &mount.key,
        }
    }

    /// As BuildKit calls them.
    fn kind(&self) -> &'static str {
        match &self.what {
            What::Step(_) => "regular",
            What::Mount(_) => "exec.cachemount",
        }
    }

    fn description(&self) -> &str {
        match &self.what {
            What::Step(step) => &step.description,
            What::Mount(mount) => &mount.description,
        }
    }

    /// When it was made, and when it was used last.
    fn times_ms(&self) -> (i64, i64) {
        match &self.what {
            What::Step(step) => (step.created_ms, step.last_used_ms),
            What::Mount(mount) => (mount.created_ms, mount.last_used_ms),
        }
    }

    fn last_used_ms(&self) -> i64 {
        self.times_ms().1
    }
}

impl App {
    async fn cache(&self) -> Outcome<Cache> {
        let since = self.db.builds_run_since().await?;
        let steps = self.db.cached_steps().await?.into_iter().map(Record::step);
        let mounts = self.db.cache_mounts().await?.into_iter().map(Record::mount);
        let mut records: Vec<Record> = steps.chain(mounts).collect();
        records.sort_by_key(Record::last_used_ms);
        let in_use_since_ms = since.map(|since| since - NOTED_MS);
        Ok(Cache { records, shared: self.blobs_of_images().await?.0, in_use_since_ms })
    }

    pub async fn cache_usage(&self) -> Outcome<CacheUsage> {
        let cache = self.cache().await?;
        Ok(CacheUsage {
            records: cache.records.iter().map(|record| cache.shown(record)).collect(),
            bytes: cache.bytes(),
        })
    }

    /// Lets records go, the one used longest ago first; none that a running build may use.
    pub async fn prune_cache(&self, wanted: &Prune) -> Outcome<Pruned> {
        let named = Named::new(&wanted.filters, self.db.now_ms())?;
        let cache = self.cache().await?;
        let matches = |record: &Record| {
            let shown = cache.shown(record);
            (wanted.all || named.shared == Some(true) || !shown.is_shared) && named.takes(&shown)
        };
        let free = match wanted.keep.min_free_bytes {
            0 => 0,
            _ => self.bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await?.free_bytes,
        };
        let going = cache.going(matches, wanted.keep.bytes(cache.bytes(), free));
        match wanted.is_dry {
            true => Ok(going.pruned()),
            false => self.let_go(going).await,
        }
    }

    /// Lets these cache mounts go as they were listed, unless they were used since; says which went.
    pub(super) async fn let_mounts_go(&self, mounts: Vec<CacheMount>) -> Outcome<Pruned> {
        let going = mounts.into_iter().map(|mount| {
            let bytes = mount.stored_bytes();
            (Record::mount(mount), bytes)
        });
        self.let_go(Going(going.collect())).await
    }

    async fn let_go(&self, going: Going) -> Outcome<Pruned> {
        let mut pruned = Pruned::default();
        let (mut blobs, mut mounts) = (Vec::new(), Vec::new());
        for (record, bytes) in going.0 {
            let is_gone = match &record.what {
                What::Step(step) => self.db.forget_cached_step(step).await?,
                What::Mount(mount) => self.db.forget_cache_mount(mount).await?,
            };
            if is_gone {
                pruned.bytes += bytes;
                pruned.keys.push(record.key().to_owned());
                mounts.extend(matches!(record.what, What::Mount(_)).then(|| record.key().to_owned()));
                blobs.extend(record.blobs.into_iter().map(|(digest, _)| digest));
            }
        }
        if !blobs.is_empty() {
            self.release_blobs(blobs).await;
        }
        if !mounts.is_empty() {
            self.forget_copies(mounts).await;
        }
        Ok(pruned)
    }

    async fn hold_cap(&self, cap_bytes: u64) -> Outcome<()> {
        // Also what a running build has used: it has its layers under a lease, and those are the last in the order.
        let cache = Cache { in_use_since_ms: None, ..self.cache().await? };
        let going = cache.going(|_| true, Some(cap_bytes));
        let pruned = self.let_go(going).await?;
        if !pruned.keys.is_empty() {
            tracing::info!(
                count = pruned.keys.len(),
                bytes = pruned.bytes,
                cap_bytes,
                "results of steps and caches went for the cap"
            );
        }
        Ok(())
    }

    /// The cap that was given, else a part of the store's disk.
    pub fn cap_of(&self, usage: &proto::StoreUsage) -> u64 {
        match self.cache_bytes {
            0 => (usage.blob_bytes + usage.free_bytes) / DISK_PART,
            given => given,
        }
    }

    async fn cap_of_cache(&self) -> Outcome<u64> {
        if self.cache_bytes != 0 {
            return Ok(self.cache_bytes);
        }
        Ok(self.cap_of(&self.bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await?))
    }
}

/// Holds the results of steps and cache mounts under their cap until `cancel`, while builds go on.
pub async fn keep_cache_cap(app: Arc<App>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = app.cache_grew.notified() => {}
        }
        tokio::time::sleep(GATHER).await;
        let held = async { app.hold_cap(app.cap_of_cache().await?).await };
        if let Err(error) = held.await {
            tracing::warn!(%error, "the cache of build steps may be past its cap");
        }
    }
}

/// What filters say of records.
struct Named<'a> {
    filters: &'a Filters,
    /// Not used since.
    before_ms: Option<i64>,
    shared: Option<bool>,
    private: Option<bool>,
    in_use: Option<bool>,
}

impl<'a> Named<'a> {
    fn new(filters: &'a Filters, now_ms: i64) -> Outcome<Self> {
        let (until, unused) = (filters.until_ms(now_ms)?, filters.moment_ms("unused-for", now_ms)?);
        Ok(Self {
            filters,
            before_ms: until.into_iter().chain(unused).min(),
            shared: filters.flag("shared")?,
            private: filters.flag("private")?,
            in_use: filters.flag("inuse")?,
        })
    }

    fn takes(&self, record: &CacheRecord) -> bool {
        self.before_ms.is_none_or(|before| record.last_used_ms < before)
            && self.shared.is_none_or(|wanted| wanted == record.is_shared)
            && self.private.is_none_or(|wanted| wanted != record.is_shared)
            && self.in_use.is_none_or(|wanted| wanted == record.is_in_use)
            && self.filters.any("id", |id| record.key.starts_with(id))
            && self.filters.any("type", |kind| kind == record.kind)
            && self.filters.any("description", |text| record.description.contains(text))
            // No record has a label.
            && self.filters.labels(|_, _| false)
    }
}

/// Records that go, each with the bytes that go with it.
struct Going(Vec<(Record, u64)>);

impl Going {
    fn pruned(self) -> Pruned {
        let bytes = self.0.iter().map(|(_, bytes)| bytes).sum();
        Pruned { keys: self.0.into_iter().map(|(record, _)| record.key().to_owned()).collect(), bytes }
    }
}

impl Cache {
    fn shown(&self, record: &Record) -> CacheRecord {
        let (created_ms, last_used_ms) = record.times_ms();
        CacheRecord {
            key: record.key().to_owned(),
            kind: record.kind(),
            description: record.description().to_owned(),
            bytes: self.own_bytes(record),
            whole_bytes: record.blobs.iter().map(|(_, size)| size).sum(),
            is_in_use: self.is_in_use(record),
            is_shared: self.is_shared(record),
            created_ms,
            last_used_ms,
        }
    }

    fn is_in_use(&self, record: &Record) -> bool {
        self.in_use_since_ms.is_some_and(|since| record.last_used_ms() >= since)
    }

    /// Whether images have all that it holds: nothing is free when it goes.
    fn is_shared(&self, record: &Record) -> bool {
        !record.blobs.is_empty() && record.blobs.iter().all(|(digest, _)| self.shared.contains(digest))
    }

    fn own_bytes(&self, record: &Record) -> u64 {
        record.blobs.iter().filter(|(digest, _)| !self.shared.contains(digest)).map(|(_, size)| size).sum()
    }

    /// What all take together besides what images share; a blob of several records counts once.
    fn bytes(&self) -> u64 {
        self.blobs().values().map(|(bytes, _)| bytes).sum()
    }

    /// Blobs that no image has: their bytes, and how many records hold them.
    fn blobs(&self) -> HashMap<&str, (u64, usize)> {
        let mut blobs = HashMap::new();
        for (digest, size) in self.records.iter().flat_map(|record| &record.blobs) {
            if !self.shared.contains(digest) {
                blobs.entry(digest.as_str()).or_insert((*size, 0)).1 += 1;
            }
        }
        blobs
    }

    /// Those that `matches`, the one used longest ago first, until no more than `keep_bytes` are left; without them all go.
    fn going(&self, matches: impl Fn(&Record) -> bool, keep_bytes: Option<u64>) -> Going {
        let mut blobs = self.blobs();
        let mut left = self.bytes();
        let mut going = Vec::new();
        for record in self.records.iter().filter(|record| matches(record) && !self.is_in_use(record)) {
            if keep_bytes.is_some_and(|keep| left <= keep) {
                break;
            }
            let mut freed = 0;
            for (digest, _) in &record.blobs {
                if let Some((bytes, holders)) = blobs.get_mut(digest.as_str()) {
                    *holders -= 1;
                    freed += if *holders == 0 { *bytes } else { 0 };
                }
            }
            left -= freed;
            going.push((record.clone(), freed));
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
        Cache { records: steps.iter().map(step).map(Record::step).collect(), shared, in_use_since_ms }
    }

    #[test]
    fn what_was_used_longest_ago_goes_until_the_rest_fits() {
        let steps: &[(&str, i64, &[&str])] =
            &[("a", 1, &["x"]), ("b", 2, &["x", "y"]), ("c", 3, &["image"]), ("d", 4, &["z"]), ("e", 5, &[])];
        for (keep, in_use, keys, bytes) in [
            (None, None, &["a", "b", "c", "d", "e"][..], 30),
            (Some(30), None, &[], 0),
            // A layer goes with the last result that holds it.
            (Some(25), None, &["a", "b"], 20),
            (Some(10), None, &["a", "b"], 20),
            (Some(9), None, &["a", "b", "c", "d"], 30),
            // What takes nothing may stay.
            (Some(0), None, &["a", "b", "c", "d"], 30),
            (Some(1), Some(3), &["a", "b"], 20),
            (Some(1), Some(0), &[], 0),
        ] {
            let cache = cache(steps, &["image"], in_use);
            assert_eq!(cache.bytes(), 30);
            let pruned = cache.going(|_| true, keep).pruned();
            assert_eq!(
                (pruned.keys.as_slice(), pruned.bytes),
                (&keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>()[..], bytes),
                "{keep:?}"
            );
        }
    }

    #[test]
    fn what_may_stay() {
        for (used, reserved_bytes, max_used_bytes, min_free_bytes, wanted) in [
            (100, 0, 0, 0, None),
            (100, 30, 0, 0, Some(30)),
            (100, 30, 50, 0, Some(50)),
            (100, 60, 50, 0, Some(60)),
            // 20 are free.
            (100, 0, 0, 10, Some(100)),
            (100, 0, 0, 50, Some(70)),
            (100, 80, 0, 50, Some(80)),
            (100, 0, 60, 50, Some(60)),
            (100, 0, 90, 50, Some(70)),
            (100, 0, 0, 500, Some(0)),
            // Images have all of it, and nothing of it would make room.
            (0, 0, 0, 0, None),
            (0, 0, 0, 10, Some(0)),
            (0, 0, 0, 500, Some(0)),
        ] {
            let keep = Keep { reserved_bytes, max_used_bytes, min_free_bytes };
            assert_eq!(keep.bytes(used, 20), wanted, "{used}: {keep:?}");
        }
        let shared = cache(&[("a", 1, &["x"])], &["x"], None);
        let keep = Keep { min_free_bytes: 10, ..Keep::default() };
        let going = shared.going(|_| true, keep.bytes(shared.bytes(), 20));
        assert_eq!(going.pruned(), Pruned::default(), "enough is free");
    }

    #[test]
    fn only_what_matches_goes() {
        let steps: &[(&str, i64, &[&str])] = &[("a", 1, &["x"]), ("b", 2, &["y"])];
        let cache = cache(steps, &["y"], None);
        assert_eq!(
            cache.going(|record| record.key() == "b", None).pruned(),
            Pruned { keys: vec!["b".to_owned()], bytes: 0 }
        );
        assert!(cache.is_shared(&cache.records[1]) && !cache.is_shared(&cache.records[0]));
    }
}
