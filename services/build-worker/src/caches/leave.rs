//! What a step left in a cache is stored.

use std::sync::Arc;

use bus::{Target, calls};
use contexts::Tree;
use model::{Digest, PRIVATE};
use service::metrics;

use super::files::{Files, Places, leave_waste, merge, places_of};
use super::scan::{self, Scanned};
use super::upload::upload;
use super::{Held, MOVED, VERSION};
use crate::failure::{Doing as _, Failure};
use crate::layers::blocking;
use crate::patience::patiently;
use crate::session::{BLOBS_TTL_SECONDS, keep_blobs};

/// Others may store at the same time.
const TRIES: usize = 5;

/// What the slot was when the last step left it.
struct Left {
    begun: u64,
    version: u64,
    base: Option<Arc<Files>>,
    scanned: Scanned,
}

/// What has come of it: the version that the slot holds now.
enum Stored {
    Version(u64),
    /// What is stored is made of this and of what others stored.
    Merged,
    /// Another had the lock meanwhile: what this step wrote does not count.
    Overtaken,
}

/// A step leaves the slot. The last one to do so stores what it holds, unless another has begun with it meanwhile.
///
/// # Errors
/// Where the gateway or the layer store does not answer: the next step on this worker stores it then.
pub async fn leave(held: &Held) -> Result<(), Failure> {
    let slot = &held.slot;
    let (begun, version, base, index) = {
        let mut state = slot.state.lock().await;
        state.inside -= 1;
        if state.inside > 0 {
            return Ok(());
        }
        (state.begun, state.version, state.base.clone(), state.index.clone())
    };
    let folder = slot.folder.clone();
    let scanned = blocking(move || scan::scan(&folder, &index).doing(|| "looking at a cache".to_owned())).await?;
    if scanned.left_out > 0 {
        tracing::info!(id = held.told.id, count = scanned.left_out, "files of a cache stay on this worker");
    }
    let bytes = scanned.files.bytes();
    slot.bytes.store(bytes, std::sync::atomic::Ordering::Release);
    let left = Left { begun, version, base, scanned };
    let Some(stored) = store(held, &left).await? else { return Ok(()) };
    let mut state = slot.state.lock().await;
    if state.begun != begun {
        return Ok(());
    }
    let Scanned { files, index, .. } = left.scanned;
    slot.known.note(files.0.len());
    (state.base, state.index, state.is_ahead) = (Some(files), Arc::new(index), false);
    state.version = match stored {
        Stored::Version(version) => version,
        Stored::Merged | Stored::Overtaken => 0,
    };
    // From now on the copy may go: what it holds is stored.
    let file = slot.folder.join(VERSION);
    std::fs::write(&file, format!("{} {bytes}\n", state.version)).doing(|| format!("writing {}", file.display()))?;
    Ok(())
}

async fn store(held: &Held, left: &Left) -> Result<Option<Stored>, Failure> {
    let caches = &held.caches;
    let owner = proto::LeaseCreate { owner: "cache-mount".to_owned(), ttl_seconds: BLOBS_TTL_SECONDS };
    let lease = caches.bus.call::<calls::LeaseCreate>(&Target::Store, &owner).await?.id;
    let keeping = keep_blobs(caches.bus.clone(), &lease);
    let stored = try_store(held, left, &lease).await;
    drop(keeping);
    if let Err(error) = caches.bus.call::<calls::LeaseEnd>(&Target::Store, &proto::Lease { id: lease }).await {
        tracing::debug!(%error, "a lease runs out by itself");
    }
    stored
}

async fn try_store(held: &Held, left: &Left, lease: &str) -> Result<Option<Stored>, Failure> {
    let (caches, told) = (&held.caches, &held.told);
    let ours = &*left.scanned.files;
    let mut there = caches.stored(&told.key, false).await?;
    let mut places = Places::new();
    let mut base = left.base.clone();
    for _ in 0..TRIES {
        if there.version > 0 && there.version == left.version && base.as_deref() == Some(ours) {
            return Ok(Some(Stored::Version(there.version)));
        }
        let mut theirs = Files::default();
        if there.version > 0 {
            let tree = caches.tree(&there).await?;
            theirs = Files::of(&tree);
            places.extend(places_of(&tree));
        }
        if there.version == left.version && base.is_none() {
            base = Some(Arc::new(theirs.clone()));
        }
        let is_known = there.version == left.version || there.version == 0;
        if there.version > 0 && *ours == theirs {
            return Ok(Some(Stored::Version(there.version)));
        }
        if !is_known && told.sharing == "locked" && left.version > 0 {
            tracing::warn!(id = told.id, "the lock of a cache was lost: what the step wrote does not count");
            return Ok(Some(Stored::Overtaken));
        }
        let merged = match is_known || told.sharing == PRIVATE {
            true => ours.clone(),
            false => merge(base.as_deref().unwrap_or(&Files::default()), ours, &theirs),
        };
        let Some(sent) = send(held, left, (&merged, lease), &mut places).await? else { return Ok(None) };
        let put = proto::CacheMountPut { mount: Some(mount_of(held, &sent)), replaces: there.version };
        let reply = patiently(|| caches.bus.call::<calls::CacheMountPut>(&Target::Gateway, &put)).await?;
        let now = reply.mount.unwrap_or_default();
        if reply.stored {
            let is_ours = merged == *ours;
            return Ok(Some(if is_ours { Stored::Version(now.version) } else { Stored::Merged }));
        }
        there = now;
    }
    Err(Failure::internal("others store all the time"))
}

/// A tree that lies in the layer store, as a blob.
struct Sent {
    tree: Tree,
    digest: Digest,
    size: u64,
}

/// Puts the files' contents and tree into the layer store. None: another step has begun with the slot, so what was read of
/// it may be half written.
async fn send(
    held: &Held,
    left: &Left,
    (files, lease): (&Files, &str),
    places: &mut Places,
) -> Result<Option<Sent>, Failure> {
    let store = &held.caches.store;
    leave_waste(places, files, &left.scanned.files);
    loop {
        let sent = upload((store, lease), (&held.slot.folder, &*left.scanned.files), files, places).await;
        if held.slot.state.lock().await.begun != left.begun {
            return Ok(None);
        }
        metrics::add(&MOVED, &[("direction", "out")], sent?);
        let tree = files.tree(places);
        // What was stored earlier must still be there.
        let gone = held.caches.pin(lease, tree.packs.iter().map(|pack| pack.digest.as_str())).await?;
        if gone.is_empty() {
            let bytes = tree.encode();
            let digest = store.put_bytes(&bytes, Some(lease)).await.map_err(Failure::caused)?;
            return Ok(Some(Sent { tree, digest, size: bytes.len() as u64 }));
        }
        let others = files.contents().filter(|(_, content)| {
            places.get(&content.sha256).is_some_and(|(pack, _)| gone.contains(pack.digest.as_str()))
        });
        let here: std::collections::HashSet<_> = left.scanned.files.contents().map(|(_, c)| c.sha256).collect();
        if others.into_iter().any(|(_, content)| !here.contains(&content.sha256)) {
            return Err(Failure::internal(format!("the layer store has lost {gone:?}")));
        }
        places.retain(|_, (pack, _)| !gone.contains(pack.digest.as_str()));
    }
}

fn mount_of(held: &Held, Sent { tree, digest, size }: &Sent) -> proto::CacheMount {
    let descriptor = |digest: &Digest, size: u64| proto::Descriptor {
        media_type: Tree::MEDIA_TYPE.to_owned(),
        digest: digest.to_string(),
        size,
    };
    proto::CacheMount {
        key: held.told.key.clone(),
        id: held.told.id.clone(),
        sharing: held.told.sharing.clone(),
        tree: Some(descriptor(digest, *size)),
        packs: tree.packs.iter().map(|pack| descriptor(&pack.digest, pack.size)).collect(),
        files: tree.files(),
        bytes: tree.bytes(),
        description: held.told.description.clone(),
        ..Default::default()
    }
}
