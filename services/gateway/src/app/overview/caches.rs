//! What `RUN --mount=type=cache` keeps.

use std::collections::HashMap;

use metadata::CacheMount;

use super::page::List;
use super::shape::Time;
use crate::app::filters::Filters;
use crate::app::storage::Keeper;
use crate::app::{App, Failure, Outcome};
use crate::shape;

/// Without all, ids and filters, what no step has used for so long is pruned.
const OLD_MS: i64 = 7 * 24 * 3_600_000;

shape! {
    /// The content of a cache mount, as it was stored last.
    pub struct Cache {
        /// Names it: 64 hex digits. A private cache has another than the shared or locked one with the same id.
        pub key: String,
        /// Its id in Dockerfiles; without one the mount's target.
        pub id: String,
        /// shared, private or locked, of the step that used it last.
        pub sharing: String,
        /// Sum of its files, in bytes.
        pub bytes: u64,
        /// How many files it has.
        pub files: u64,
        /// What it takes in the layer store, in bytes.
        pub stored_bytes: u64,
        /// Which step used it last.
        pub description: String,
        /// Who stored it; empty where it was imported.
        pub worker_id: String,
        /// The workers that have a copy.
        pub workers: Vec<CacheCopy>,
        /// When it was stored first.
        pub created_at: Option<Time>,
        /// When a step used it last.
        pub last_used_at: Option<Time>,
    }
    /// A cache as a worker has it.
    pub struct CacheCopy {
        /// Id of the worker.
        pub worker: String,
        /// Whether it is what is stored; else a step that begins brings what differs.
        pub current: bool,
        /// Whether a step has it now.
        pub in_use: bool,
        /// Sum of its files, in bytes.
        pub bytes: u64,
    }
    /// What a prune took, or would take.
    pub struct CachesPruned {
        /// The caches.
        pub items: Vec<Cache>,
        /// What they took in the layer store, in bytes.
        pub bytes: u64,
    }
}

/// Which caches shall go.
pub struct CachePrune {
    /// Ids or keys; none: all that the filters name.
    pub names: Vec<String>,
    pub filters: Filters,
    /// Also those that were used lately.
    pub all: bool,
    pub is_dry: bool,
}

impl App {
    /// The caches that these filters name, the one used last first.
    pub async fn cache_list(&self, filters: &Filters) -> Outcome<List<Cache>> {
        Ok(List::whole(self.caches_named(filters).await?.into_iter().map(|(_, shown)| shown).collect()))
    }

    /// # Errors
    /// `NotFound` for one that is not there, `InvalidArgument` for what names several.
    pub async fn cache_shown(&self, name: &str) -> Outcome<Cache> {
        let mount = self.find_cache(name).await?;
        Ok(shown(&mount, &self.keepers(false).await?))
    }

    /// A cache by its id, or by how its key begins.
    ///
    /// # Errors
    /// `NotFound` for one that is not there, `InvalidArgument` for what names several.
    pub async fn find_cache(&self, name: &str) -> Outcome<CacheMount> {
        Ok(one_of(&self.db.cache_mounts().await?, name)?.clone())
    }

    /// Removes caches that no running build may use, with all copies.
    pub async fn prune_caches(&self, wanted: &CachePrune) -> Outcome<CachesPruned> {
        let mut going = self.caches_named(&wanted.filters).await?;
        if !wanted.names.is_empty() {
            let all = self.db.cache_mounts().await?;
            let keys = wanted.names.iter().map(|name| Ok(&one_of(&all, name)?.key));
            let keys = keys.collect::<Outcome<Vec<_>>>()?;
            going.retain(|(mount, _)| keys.contains(&&mount.key));
        }
        let since = self.db.builds_run_since().await?;
        let is_narrow = !wanted.names.is_empty() || !wanted.filters.is_empty();
        let before = self.db.now_ms() - OLD_MS;
        going.retain(|(mount, shown)| {
            let may_be_in_use = since.is_some_and(|since| mount.last_used_ms >= since);
            let is_in_use = may_be_in_use || shown.workers.iter().any(|copy| copy.in_use);
            !is_in_use && (wanted.all || is_narrow || mount.last_used_ms < before)
        });
        if wanted.is_dry {
            let bytes = going.iter().map(|(mount, _)| mount.stored_bytes()).sum();
            return Ok(CachesPruned { items: going.into_iter().map(|(_, shown)| shown).collect(), bytes });
        }
        let pruned = self.let_mounts_go(going.iter().map(|(mount, _)| mount.clone()).collect()).await?;
        let items = going.into_iter().map(|(_, shown)| shown).filter(|shown| pruned.keys.contains(&shown.key));
        Ok(CachesPruned { items: items.collect(), bytes: pruned.bytes })
    }

    async fn caches_named(&self, filters: &Filters) -> Outcome<Vec<(CacheMount, Cache)>> {
        let now = self.db.now_ms();
        let (until, unused) = (filters.until_ms(now)?, filters.moment_ms("unused-for", now)?);
        let before = until.into_iter().chain(unused).min();
        let keepers = self.keepers(false).await?;
        let all = self.db.cache_mounts().await?.into_iter().rev();
        let named = all.map(|mount| (shown(&mount, &keepers), mount)).filter(|(shown, mount)| {
            before.is_none_or(|before| mount.last_used_ms < before)
                && filters.any("id", |id| mount.id == id || mount.key.starts_with(id))
                && filters.any("sharing", |sharing| mount.sharing == sharing)
                && filters.any("worker", |worker| shown.workers.iter().any(|copy| copy.worker == worker))
        });
        Ok(named.map(|(shown, mount)| (mount, shown)).collect())
    }
}

/// A cache by its id, or by how its key begins.
fn one_of<'a>(all: &'a [CacheMount], name: &str) -> Outcome<&'a CacheMount> {
    let by_id: Vec<&CacheMount> = all.iter().filter(|mount| mount.id == name).collect();
    let by_key = || all.iter().filter(|mount| !name.is_empty() && mount.key.starts_with(name)).collect();
    let found = if by_id.is_empty() { by_key() } else { by_id };
    match found.as_slice() {
        [] => Err(Failure::not_found(format!("no such cache: {name}"))),
        [one] => Ok(one),
        several => {
            let keys: Vec<&str> = several.iter().map(|mount| mount.key.get(..12).unwrap_or(&mount.key)).collect();
            Err(Failure::invalid(format!("{name} names several caches: {}", keys.join(", "))))
        }
    }
}

fn shown(mount: &CacheMount, keepers: &[Keeper]) -> Cache {
    let mut copies = HashMap::<&str, CacheCopy>::new();
    for keeper in keepers {
        let kept = keeper.storage.iter().flat_map(|storage| &storage.caches).filter(|copy| copy.key == mount.key);
        for copy in kept {
            // Of private ones a worker may have several.
            let shown = copies.entry(&keeper.id).or_insert_with(|| CacheCopy {
                worker: keeper.id.clone(),
                current: false,
                in_use: false,
                bytes: 0,
            });
            shown.current |= copy.version == mount.version.cast_unsigned();
            shown.in_use |= copy.in_use;
            shown.bytes += copy.bytes;
        }
    }
    let mut workers: Vec<CacheCopy> = copies.into_values().collect();
    workers.sort_by(|a, b| a.worker.cmp(&b.worker));
    Cache {
        key: mount.key.clone(),
        id: mount.id.clone(),
        sharing: mount.sharing.clone(),
        bytes: mount.bytes,
        files: mount.files,
        stored_bytes: mount.stored_bytes(),
        description: mount.description.clone(),
        worker_id: mount.worker_id.clone(),
        workers,
        created_at: Time::of_ms(mount.created_ms),
        last_used_at: Time::of_ms(mount.last_used_ms),
    }
}
