//! What the layer store and the machines of a farm keep.

use std::collections::BTreeMap;

use bus::{Target, calls};

use crate::app::holders::Kind;
use crate::app::{App, Outcome};
use crate::shape;

shape! {
    /// What the whole Boxyard keeps, besides volumes and what containers write.
    pub struct DiskUsage {
        /// The layer store.
        pub store: StoreUsage,
        /// The machines, by their hosts.
        pub machines: Vec<MachineUsage>,
    }
    /// What the layer store keeps. Each blob counts once, for the first of the kinds that has it.
    pub struct StoreUsage {
        /// Number of blobs.
        pub blobs: u64,
        /// Their bytes.
        pub bytes: u64,
        /// Bytes that are free on its disk.
        pub free_bytes: u64,
        /// images, packed (layers as registries get them), build-cache, cache-mounts, contexts, logs, registry (pushed to the
        /// registry for users), leased (in use by what goes on) and unreferenced, in this order.
        pub kinds: Vec<KindUsage>,
    }
    /// Blobs of a kind.
    pub struct KindUsage {
        /// The kind.
        pub kind: String,
        /// Number of blobs.
        pub blobs: u64,
        /// Their bytes.
        pub bytes: u64,
        /// Bytes that it is held under: of build-cache and cache-mounts together; null where nothing bounds it.
        pub cap_bytes: Option<u64>,
    }
    /// What a machine keeps for its workers and its node.
    pub struct MachineUsage {
        /// Its host.
        pub host: String,
        /// Its workers and nodes.
        pub members: Vec<String>,
        /// Those that did not answer: what they keep is left out.
        pub silent: Vec<String>,
        /// Bytes that all of it is held under; null where the machine has no worker.
        pub cap_bytes: Option<u64>,
        /// Bytes that are free on its disk; null where the machine has no worker.
        pub free_bytes: Option<u64>,
        /// layers (unpacked), trees (clients' files), contexts and caches.
        pub kinds: Vec<KeptUsage>,
    }
    /// What a machine keeps of a kind.
    pub struct KeptUsage {
        /// The kind.
        pub kind: String,
        /// How many.
        pub count: u64,
        /// Bytes of content.
        pub bytes: u64,
        /// Of these, what steps and containers use now.
        pub in_use_bytes: u64,
    }
}

impl App {
    /// # Errors
    /// `Unavailable` when the layer store or the bus does not answer.
    pub async fn farm_usage(&self) -> Outcome<DiskUsage> {
        Ok(DiskUsage { store: self.store_kinds().await?, machines: self.machines().await? })
    }

    /// All blobs of the layer store.
    pub async fn stored_blobs(&self) -> Outcome<Vec<proto::StoredBlob>> {
        let mut blobs: Vec<proto::StoredBlob> = Vec::new();
        loop {
            let after = blobs.last().map(|blob| blob.digest.clone()).unwrap_or_default();
            let page = self.bus.call::<calls::BlobsList>(&Target::Store, &proto::BlobsList { after }).await?;
            blobs.extend(page.blobs);
            if !page.more {
                return Ok(blobs);
            }
        }
    }

    async fn store_kinds(&self) -> Outcome<StoreUsage> {
        let holders = self.holders().await?;
        let usage = self.bus.call::<calls::Usage>(&Target::Store, &proto::Empty {}).await?;
        let cap = Some(self.cap_of(&usage));
        let contexts = Some(crate::app::sessions::context::MAX_BYTES);
        let logs = u64::try_from(self.history.log_bytes).ok();
        let mut kinds: Vec<KindUsage> = [
            ("images", None),
            ("packed", None),
            ("build-cache", cap),
            ("cache-mounts", cap),
            ("contexts", contexts),
            ("logs", logs),
            ("registry", None),
            ("leased", None),
            ("unreferenced", None),
        ]
        .map(|(kind, cap_bytes)| KindUsage { kind: kind.to_owned(), blobs: 0, bytes: 0, cap_bytes })
        .into();
        let (mut blobs, mut bytes) = (0, 0);
        for blob in self.stored_blobs().await? {
            let at = match holders.first_of(&blob.digest) {
                Some(Kind::Image | Kind::Container) => 0,
                Some(Kind::Packed) => 1,
                Some(Kind::Step) => 2,
                Some(Kind::CacheMount) => 3,
                Some(Kind::Context) => 4,
                Some(Kind::Log) => 5,
                None if blob.shown => 6,
                None if blob.leased => 7,
                None => 8,
            };
            kinds[at].blobs += 1;
            kinds[at].bytes += blob.size;
            blobs += 1;
            bytes += blob.size;
        }
        Ok(StoreUsage { blobs, bytes, free_bytes: usage.free_bytes, kinds })
    }

    async fn machines(&self) -> Outcome<Vec<MachineUsage>> {
        let mut machines = BTreeMap::<(String, String), MachineUsage>::new();
        for keeper in self.keepers(true).await? {
            let name = format!("{} {}", keeper.kind, keeper.id);
            let storage = keeper.storage;
            let folder = storage.as_ref().map(|storage| storage.machine.clone()).unwrap_or_default();
            let machine = machines.entry((keeper.host.clone(), folder)).or_insert_with(|| MachineUsage {
                host: keeper.host,
                members: Vec::new(),
                silent: Vec::new(),
                cap_bytes: None,
                free_bytes: None,
                kinds: ["layers", "trees", "contexts", "caches"].map(none).into(),
            });
            match storage {
                Some(storage) => machine.add(name, storage),
                None => machine.silent.push(name),
            }
        }
        Ok(machines.into_values().collect())
    }
}

fn none(kind: &str) -> KeptUsage {
    KeptUsage { kind: kind.to_owned(), count: 0, bytes: 0, in_use_bytes: 0 }
}

impl KeptUsage {
    fn add(&mut self, kept: proto::KeptFiles) {
        self.count += kept.count;
        self.bytes += kept.bytes;
        self.in_use_bytes += kept.held_bytes;
    }
}

impl MachineUsage {
    fn add(&mut self, member: String, storage: proto::MachineStorage) {
        self.members.push(member);
        let of = |value: u64| (value > 0).then_some(value);
        // The smallest cap of a machine's workers holds for all.
        self.cap_bytes = self.cap_bytes.into_iter().chain(of(storage.cap_bytes)).min();
        self.free_bytes = self.free_bytes.or(of(storage.free_bytes));
        // The layers are the machine's, told by each of its members.
        let layers = storage.layers.unwrap_or_default();
        self.kinds[0] = none("layers");
        self.kinds[0].add(layers);
        self.kinds[1].add(storage.trees.unwrap_or_default());
        self.kinds[2].add(storage.contexts.unwrap_or_default());
        for copy in storage.caches {
            let held_bytes = if copy.in_use { copy.bytes } else { 0 };
            self.kinds[3].add(proto::KeptFiles { count: 1, bytes: copy.bytes, held_bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_layers_count_once_and_its_workers_caches_add_up() {
        let mut machine = MachineUsage {
            host: "h".to_owned(),
            members: Vec::new(),
            silent: Vec::new(),
            cap_bytes: None,
            free_bytes: None,
            kinds: ["layers", "trees", "contexts", "caches"].map(none).into(),
        };
        let kept = |bytes| Some(proto::KeptFiles { count: 1, bytes, held_bytes: 0 });
        let copy = |in_use| proto::CacheCopy { key: "k".to_owned(), version: 1, bytes: 5, in_use };
        let worker = |cap_bytes, in_use| proto::MachineStorage {
            cap_bytes,
            free_bytes: 9,
            layers: kept(100),
            trees: kept(10),
            caches: vec![copy(in_use)],
            ..Default::default()
        };
        machine.add("build-worker a".to_owned(), worker(70, false));
        machine.add("build-worker b".to_owned(), worker(50, true));
        machine.add("node n".to_owned(), proto::MachineStorage { layers: kept(100), ..Default::default() });
        let sums: Vec<(u64, u64)> = machine.kinds.iter().map(|kind| (kind.bytes, kind.in_use_bytes)).collect();
        assert_eq!(sums, [(100, 0), (20, 0), (0, 0), (10, 5)]);
        assert_eq!((machine.cap_bytes, machine.free_bytes, machine.members.len()), (Some(50), Some(9), 3));
    }
}
