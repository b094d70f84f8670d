//! What is stored of a cache comes to this worker, as far as it differs from what lies here.

use std::path::Path;
use std::sync::Arc;

use contexts::{Kind, Tree};
use service::metrics;

use super::files::{Files, Places};
use super::scan::{self, Index};
use super::{Held, MOVED, State};
use crate::context::trees::change;
use crate::context::trees::difference::difference;
use crate::failure::{Doing as _, Failure};
use crate::layers::blocking;
use crate::space;

/// What is stored may be replaced while it comes.
const TRIES: usize = 3;

/// Makes the slot hold what is stored. Says whether it has content; without, it is to be made.
pub async fn bring(held: &Held, state: &mut State, lease: &str) -> Result<bool, Failure> {
    let doing = || "making room for a cache".to_owned();
    for _ in 0..TRIES {
        let stored = held.caches.stored(&held.told.key, true).await?;
        let is_there = held.root().symlink_metadata().is_ok();
        match (stored.version, state.version) {
            // It was removed.
            (0, version) if version > 0 => {
                forget(held, state).doing(doing)?;
                return Ok(false);
            }
            (0, _) => return Ok(is_there),
            (there, here) if there == here && is_there => {
                // An earlier process has left it. What the step changes is told from this, also when others store meanwhile.
                if state.base.is_none() {
                    let files = Arc::new(Files::of(&held.caches.tree(&stored).await?));
                    held.slot.known.note(files.0.len());
                    state.base = Some(files);
                }
                return Ok(true);
            }
            _ => {}
        }
        match fetch(held, state, &stored, lease).await {
            Ok(()) => return Ok(true),
            Err(failure) => {
                // What is half here counts for nothing.
                forget(held, state).doing(doing)?;
                if matches!(failure, Failure::Cancelled) {
                    return Err(failure);
                }
                tracing::warn!(%failure, id = held.told.id, "a cache could not be brought here");
            }
        }
    }
    // A cache is nothing that a build may fail for.
    Ok(false)
}

/// Takes the slot's content out of the way at once; it may be much, and is removed meanwhile.
fn forget(held: &Held, state: &mut State) -> std::io::Result<()> {
    *state = State { begun: state.begun, ..State::default() };
    let gone = held.slot.folder.join(format!("gone-{}", hex::encode(rand::random::<[u8; 4]>())));
    match std::fs::rename(held.root(), &gone) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        moved => moved?,
    }
    held.slot.bytes.store(0, std::sync::atomic::Ordering::Release);
    held.caches.leaving.spawn_blocking(move || {
        if let Err(error) = std::fs::remove_dir_all(&gone) {
            tracing::warn!(%error, path = %gone.display(), "a cache's folder stays");
        }
    });
    Ok(())
}

async fn fetch(held: &Held, state: &mut State, stored: &proto::CacheMount, lease: &str) -> Result<(), Failure> {
    let store = &held.caches.store;
    let blobs = stored.packs.iter().chain(&stored.tree).map(|blob| blob.digest.as_str());
    if !held.caches.pin(lease, blobs).await?.is_empty() {
        return Err(Failure::internal("another version is stored meanwhile"));
    }
    let tree = Arc::new(held.caches.tree(stored).await?);
    let (folder, index) = (held.slot.folder.clone(), state.index.clone());
    let old = blocking(move || look(&folder, &index).doing(|| "looking at a cache".to_owned())).await?;
    let old = Arc::new(old.tree(&Places::default()));
    let bytes = moved_bytes(&old, &tree);
    space::ensure(&held.slot.folder, bytes).doing(|| "bringing a cache".to_owned())?;
    change::change(store, &held.slot.folder, old, tree.clone()).await?;
    let files = Arc::new(Files::of(&tree));
    held.slot.bytes.store(tree.bytes(), std::sync::atomic::Ordering::Release);
    let (folder, written) = (held.slot.folder.clone(), files.clone());
    let index = blocking(move || Index::of(&folder, &written).doing(|| "looking at a cache".to_owned())).await?;
    tracing::debug!(id = held.told.id, version = stored.version, bytes, "a cache was brought here");
    metrics::add(&MOVED, &[("direction", "in")], bytes);
    held.slot.known.note(files.0.len());
    *state = State {
        version: stored.version,
        base: Some(files),
        index: Arc::new(index),
        ..State { begun: state.begun, ..State::default() }
    };
    Ok(())
}

fn look(folder: &Path, index: &Index) -> std::io::Result<Arc<Files>> {
    std::fs::create_dir_all(folder)?;
    Ok(scan::scan(folder, index)?.files)
}

/// Content that comes over the net.
fn moved_bytes(old: &Tree, new: &Tree) -> u64 {
    let made = difference(old, new).made.into_iter().map(|at| match &new.entries[at].kind {
        Kind::File { content, hard_link: None } => content.size,
        _ => 0,
    });
    made.sum()
}
