//! Contexts that stay unpacked for the next build with the same one.
//!
//! Nothing here is needed: a context that was given up is unpacked again from the layer store. What is kept is bounded
//! by number, by bytes and by the room that the disk has.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::Context;
use super::recent::{self, Recent};
use crate::failure::{Doing as _, Failure};
use crate::space::free_bytes;

const MAX_CONTEXTS: usize = 8;
const MAX_BYTES: u64 = 1 << 30;
/// At most this part of the free space.
const FREE_SPACE_PART: u64 = 20;

/// Kept contexts.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    contexts: Mutex<Recent<Context>>,
    grown: Arc<Notify>,
}

impl recent::Kept for Context {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Kept {
    /// Starts empty: what an earlier process kept is removed. `grown` is told when there is more than before.
    pub fn open(folder: PathBuf, grown: Arc<Notify>) -> Result<Self, Failure> {
        let opening = || format!("opening {}", folder.display());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).doing(opening),
            _ => {}
        }
        std::fs::create_dir_all(&folder).doing(opening)?;
        Ok(Self { folder, contexts: Mutex::default(), grown })
    }

    pub fn find(&self, key: &str) -> Option<Arc<Context>> {
        self.contexts().find(|context| context.key == key)
    }

    /// What is kept.
    pub fn kept(&self) -> proto::KeptFiles {
        self.contexts().sum()
    }

    /// Those that no build has: folder, bytes and when a build found them last.
    pub fn unused(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        self.contexts().unused()
    }

    /// Removes one unless a build has it; says whether it went. Blocks.
    pub fn remove_unused(&self, folder: &Path) -> bool {
        let is_gone = self.contexts().take_unused(folder);
        if is_gone {
            recent::remove(&[folder.to_owned()]);
        }
        is_gone
    }

    /// Keeps a context that a build is done with, if it fits, and gives up older ones for it. Blocks.
    pub fn keep(&self, context: &Context) {
        let room = free_bytes(&self.folder) / FREE_SPACE_PART;
        let limit = room.min(MAX_BYTES);
        if context.key.is_empty() || context.bytes > limit || self.find(&context.key).is_some() {
            return;
        }
        let place = self.folder.join(&context.key);
        if let Err(error) = std::fs::rename(&context.folder, &place) {
            tracing::debug!(%error, "a context is not kept");
            return;
        }
        let kept = Arc::new(Context {
            folder: place,
            dockerfile: context.dockerfile.clone(),
            key: context.key.clone(),
            bytes: context.bytes,
            blob: context.blob.clone(),
            ignore: context.ignore.clone(),
            hashes: Mutex::new(context.hashes.lock().expect("no holder panics").clone()),
        });
        let given_up = {
            let mut contexts = self.contexts();
            contexts.push(kept);
            contexts.give_up(MAX_CONTEXTS, limit)
        };
        recent::remove(&given_up);
        self.grown.notify_one();
    }

    fn contexts(&self) -> MutexGuard<'_, Recent<Context>> {
        self.contexts.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(folder: PathBuf, key: &str, bytes: u64) -> Context {
        std::fs::create_dir_all(&folder).expect("folder");
        Context {
            folder,
            dockerfile: String::new(),
            key: key.to_owned(),
            bytes,
            blob: None,
            ignore: None,
            hashes: Mutex::default(),
        }
    }

    #[test]
    fn the_oldest_unused_goes() {
        let temp = tempfile::tempdir().expect("temp folder");
        let kept = Kept::open(temp.path().join("kept"), Arc::default()).expect("opened");
        for number in 0..=MAX_CONTEXTS {
            let key = format!("k{number}");
            kept.keep(&context(temp.path().join("new"), &key, 1));
            if number == 0 {
                // In use: it stays although it is the oldest.
                std::mem::forget(kept.find("k0").expect("kept"));
            }
        }
        assert!(kept.find("k0").is_some());
        assert!(kept.find("k1").is_none() && !temp.path().join("kept/k1").exists());
        assert!(kept.find("k8").is_some_and(|context| context.folder.is_dir()));
    }

    #[test]
    fn what_does_not_fit_is_not_kept() {
        let temp = tempfile::tempdir().expect("temp folder");
        let kept = Kept::open(temp.path().join("kept"), Arc::default()).expect("opened");
        kept.keep(&context(temp.path().join("new"), "big", u64::MAX));
        kept.keep(&context(temp.path().join("new"), "", 1));
        assert!(kept.find("big").is_none() && kept.find("").is_none());
    }
}
