//! What keeps a blob, a layer or an image, and what keeps it on which machine.

use std::collections::{BTreeMap, HashMap};

use bus::{Target, calls};
use model::short_id;

use super::shape::Time;
use crate::app::holders::{Holder, Holders, Kind};
use crate::app::view;
use crate::app::{App, Failure, Outcome};
use crate::shape;

/// A step that many builds have found is told with so many of them.
const MAX_BUILDS: usize = 5;

shape! {
    /// What keeps something of the layer store.
    pub struct WhyKept {
        /// Digest of the blob; of an image its id, which is the digest of its config.
        pub digest: String,
        /// The layer that it is, by the digest of its tar; null for what is no layer.
        pub diff_id: Option<String>,
        /// Its bytes in the layer store; null where it is not there.
        pub bytes: Option<u64>,
        /// All that keeps it there. None: it goes when the layer store looks next.
        pub reasons: Vec<Reason>,
        /// Machines that have the layer unpacked.
        pub machines: Vec<UnpackedOn>,
    }
    /// One thing that keeps it.
    pub struct Reason {
        /// image, child, container, build, packed, step, cache-mount, context, log, lease or repository.
        pub kind: String,
        /// Id of the image, container, build or cache, key of the step; empty where it has none.
        pub id: String,
        /// Names of the image, the step's instruction, who holds a lease.
        pub about: String,
        /// The builds that made or found the step, newest first, and the line of their Dockerfile.
        pub builds: Vec<StepOfBuild>,
        /// When it ends by itself, unless it is renewed.
        pub ends_at: Option<Time>,
    }
    /// A step in a build.
    pub struct StepOfBuild {
        /// Id of the build.
        pub build: String,
        /// Line of the Dockerfile; 0 where it is not known.
        pub line: u32,
    }
    /// A machine that has the layer unpacked.
    pub struct UnpackedOn {
        /// Its host.
        pub host: String,
        /// Workers and node of the machine.
        pub members: Vec<String>,
        /// Bytes of content.
        pub bytes: u64,
        /// Containers and build steps that hold it. None: it goes when the machine's cap is reached.
        pub holders: Vec<String>,
    }
}

impl App {
    /// What keeps the blob, layer (by digest or diff id) or image whose digest begins with `wanted`, with or without
    /// `sha256:`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no digest and for what begins several; `NotFound` for what nobody has.
    pub async fn why_kept(&self, wanted: &str) -> Outcome<WhyKept> {
        let holders = self.holders().await?;
        let known = self.resolve(wanted, &holders).await?;
        // Of a layer the blob that is kept, which may be packed.
        let digest = match holders.blobs_of(&known) {
            blobs if blobs.contains(&known) => known.clone(),
            [first, ..] => first.clone(),
            [] => known.clone(),
        };
        let diff_id = match holders.blobs_of(&known).is_empty() {
            true => holders.diff_id_of(&digest).map(str::to_owned),
            false => Some(known),
        };
        let ask = proto::BlobHolders { digest: digest.clone() };
        let stored = self.bus.call::<calls::BlobHolders>(&Target::Store, &ask).await?;
        let kept_by = holders.of(&digest);
        let steps = kept_by.iter().filter(|holder| holder.kind == Kind::Step).map(|holder| holder.id.clone()).collect();
        let mut builds = self.builds_of_steps(&steps, MAX_BUILDS).await?;
        let mut reasons: Vec<Reason> = kept_by.into_iter().map(|holder| reason(holder, &mut builds)).collect();
        reasons.extend(self.of_image(&digest).await?);
        reasons.extend(stored.repositories.into_iter().map(of_repository));
        reasons.extend(stored.leases.into_iter().map(|lease| Reason {
            ends_at: Time::of_ms(lease.ends_at_ms),
            ..plain("lease", String::new(), lease.owner)
        }));
        let machines = match &diff_id {
            Some(diff_id) => self.unpacked_on(diff_id).await?,
            None => Vec::new(),
        };
        if !stored.found && reasons.is_empty() && machines.is_empty() {
            return Err(unknown(wanted));
        }
        Ok(WhyKept { digest, diff_id, bytes: stored.found.then_some(stored.size), reasons, machines })
    }

    async fn resolve(&self, wanted: &str, holders: &Holders) -> Outcome<String> {
        let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let is_hex = !hex.is_empty() && hex.len() <= 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Err(Failure::invalid(format!("invalid digest: {wanted}")));
        }
        let begin = format!("sha256:{hex}");
        if hex.len() == 64 {
            return Ok(begin);
        }
        let mut found: Vec<String> =
            holders.digests().filter(|digest| digest.starts_with(&begin)).map(str::to_owned).collect();
        if found.is_empty() {
            // Nobody has recorded it; the store may still have it.
            let blobs = self.stored_blobs().await?.into_iter().map(|blob| blob.digest);
            found = blobs.filter(|digest| digest.starts_with(&begin)).collect();
        }
        found.sort();
        found.dedup();
        match found.as_slice() {
            [] => Err(unknown(wanted)),
            [one] => Ok(one.clone()),
            several => Err(Failure::invalid(format!("{wanted} begins {} digests: write more of it", several.len()))),
        }
    }

    /// What stands on an image besides its names.
    async fn of_image(&self, id: &str) -> Outcome<Vec<Reason>> {
        let mut reasons = Vec::new();
        if self.db.image(id).await?.is_none() {
            return Ok(reasons);
        }
        for child in self.db.children(id).await? {
            let about = format!("image {} was built on it", short_id(&child));
            reasons.push(plain("child", child, about));
        }
        for container in self.db.containers_of_image(id).await? {
            let about = format!(
                "{} ({})",
                view::spec_of(&container).name,
                view::state_word(view::status_of(&container).state())
            );
            reasons.push(plain("container", container.id, about));
        }
        if self.db.is_in_build(id).await? {
            reasons.push(plain("build", String::new(), "a running build stands on it".to_owned()));
        }
        Ok(reasons)
    }

    async fn unpacked_on(&self, diff_id: &str) -> Outcome<Vec<UnpackedOn>> {
        let mut machines = BTreeMap::<String, UnpackedOn>::new();
        for keeper in self.keepers_of(true, diff_id).await? {
            let Some((machine, layer)) = keeper.storage.and_then(|storage| Some((storage.machine, storage.layer?)))
            else {
                continue;
            };
            let machine = machines.entry(machine).or_insert_with(|| UnpackedOn {
                host: keeper.host,
                members: Vec::new(),
                bytes: layer.bytes,
                holders: layer.holders,
            });
            machine.members.push(format!("{} {}", keeper.kind, keeper.id));
        }
        Ok(machines.into_values().collect())
    }
}

/// `builds` are those of steps, by the steps' keys.
fn reason(holder: Holder, builds: &mut HashMap<String, Vec<(String, u32)>>) -> Reason {
    let Holder { kind, id, about } = holder;
    let word = match kind {
        Kind::Image => "image",
        Kind::Container => "container",
        Kind::Packed => "packed",
        Kind::Step => "step",
        Kind::CacheMount => "cache-mount",
        Kind::Context => "context",
        Kind::Log => "log",
    };
    let of_step = if kind == Kind::Step { builds.remove(&id).unwrap_or_default() } else { Vec::new() };
    let builds = of_step.into_iter().map(|(build, line)| StepOfBuild { build, line }).collect();
    Reason { builds, ..plain(word, id, about) }
}

fn plain(kind: &str, id: String, about: String) -> Reason {
    Reason { kind: kind.to_owned(), id, about, builds: Vec::new(), ends_at: None }
}

fn of_repository(holder: proto::RepositoryHolder) -> Reason {
    let proto::RepositoryHolder { name, manifests, tags } = holder;
    let tagged: Vec<String> = tags.iter().map(|tag| format!("{name}:{tag}")).collect();
    let about = match (tagged.is_empty(), manifests.is_empty()) {
        (false, _) => tagged.join(", "),
        (true, false) => format!("{name}, in a manifest without a tag"),
        (true, true) => format!("{name}, pushed lately and named by no manifest"),
    };
    plain("repository", manifests.into_iter().next().unwrap_or_default(), about)
}

fn unknown(wanted: &str) -> Failure {
    Failure::not_found(format!("no blob, layer or image is called {wanted}"))
}
