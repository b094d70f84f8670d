//! Cache mounts of a step: their content is [`crate::caches`]' matter, their locks hang on claims of the whole cluster.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::sync::mpsc;

use super::super::Executor;
use super::super::copier::{Copier, Destination};
use super::{Mounted, inside};
use crate::claims::{Claim, Taken};
use crate::container::bind;
use crate::failure::{Doing as _, Failure};
use crate::flight::Flight;
use crate::graph::key;
use crate::halt;
use crate::layers::blocking;
use crate::rooted::Root;

/// The holder of a lock that has fallen silent is looked at so often.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

impl Executor {
    pub(super) async fn cache(
        &self,
        mounted: &mut Mounted,
        wanted: &proto::StepMount,
        command: &str,
    ) -> Result<(), Failure> {
        let mut held = self.worker.caches.take(wanted, command);
        let turn = held.turn(&self.layers.lease).await?;
        if !turn.has_content {
            self.fill(&held.root(), wanted).await?;
        }
        held.enter(turn);
        let mount = bind(held.root(), wanted.target.clone());
        mounted.mounts.push(runtime::bundle::Mount { read_only: wanted.readonly, ..mount });
        mounted.caches.push(held);
        Ok(())
    }

    /// Waits for each of the step's locked caches until no step of the cluster has it. All steps take them in one order,
    /// so that no two wait for each other.
    pub(super) async fn locks(&self, mounts: &[proto::StepMount]) -> Result<Vec<Claim>, Failure> {
        let locked = mounts.iter().filter(|mount| mount.r#type == "cache" && mount.sharing == "locked");
        let keys: BTreeSet<String> =
            locked.map(|mount| format!("cache-{}", key::digest(mount.id.as_bytes()))).collect();
        let mut locks = Vec::new();
        for key in keys {
            locks.push(self.lock(&key).await?);
        }
        Ok(locks)
    }

    async fn lock(&self, key: &str) -> Result<Claim, Failure> {
        loop {
            let flight = Flight::new(&self.build_id, 0);
            let holder = match self.worker.claims.take(key, flight, None).await? {
                Taken::New(claim) | Taken::Again(claim) => return Ok(claim),
                Taken::Held { claim, .. } => claim,
            };
            let (lines, _) = mpsc::channel(1);
            let follow = async {
                if self.worker.claims.follow(&holder, lines).await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
            };
            halt::wait(follow).await?;
        }
    }

    /// Makes a cache's folder, with what its mount's `from` holds.
    async fn fill(&self, path: &Path, wanted: &proto::StepMount) -> Result<(), Failure> {
        let files = match &wanted.from {
            Some(from) => Some(self.files(Some(from)).await?),
            None => None,
        };
        let source = match files.as_ref().and_then(super::super::copy::Files::folder) {
            Some(folder) => Some(inside(&folder, &wanted.source).await?),
            None => None,
        };
        let (path, wanted) = (path.to_owned(), wanted.clone());
        // It has its name when it is whole.
        let new = path.with_extension(hex::encode(rand::random::<[u8; 6]>()));
        blocking(move || {
            let made = make(&new, source.as_deref(), &wanted).and_then(|()| std::fs::rename(&new, &path));
            drop(files);
            made.doing(|| format!("making the cache {}", wanted.id))
        })
        .await
    }
}

fn make(new: &Path, source: Option<&Path>, wanted: &proto::StepMount) -> std::io::Result<()> {
    std::fs::create_dir_all(new)?;
    if let Some(source) = source {
        let (from, to) = (Root::open(source)?, Root::open(new)?);
        let copier = Copier {
            from: &from,
            to: &to,
            owner: None,
            chmod: None,
            excludes: None,
            epoch: None,
            disk: new,
            linked: Default::default(),
        };
        copier.source(Path::new(""), &Destination::new("/", "/"))?;
    }
    std::os::unix::fs::chown(new, Some(wanted.uid), Some(wanted.gid))?;
    std::fs::set_permissions(new, std::fs::Permissions::from_mode(wanted.mode))
}
