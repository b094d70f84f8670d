//! Files of clients: trees of the layer store, laid out in folders of this machine.
//!
//! A key of a step needs a tree alone ([`Trees::tree`]). Where its files are read, [`Trees::lay_out`] makes a folder of
//! it: the one that holds it already, else one that holds most of it and is in nobody's use, of which what differs is
//! changed, else a new one. What is kept is bounded by number, by bytes and by the room that the disk has; nothing of
//! it is needed, since all lies in the layer store.

pub mod change;
mod contents;
pub mod difference;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use contexts::{Content, Tree};
use distribution::Store;
use futures::TryStreamExt as _;
use model::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::recent::{self, Recent};
use crate::failure::{Doing as _, Failure};
use crate::halt;
use crate::layers::blocking;
use crate::space;

const MAX_FOLDERS: usize = 8;
const MAX_BYTES: u64 = 2 << 30;
/// At most this part of the free space.
const FREE_SPACE_PART: u64 = 10;
const MAX_TREES: usize = 8;

pub struct Trees {
    folder: PathBuf,
    store: Store,
    next: AtomicU64,
    /// Read trees by digest, the one used last at the end.
    trees: Mutex<Vec<(Digest, Arc<Tree>)>>,
    kept: Mutex<Recent<LaidOut>>,
    /// Those that are being laid out.
    making: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    grown: Arc<Notify>,
}

/// A folder that holds the files of a tree. They must not be changed.
#[derive(Debug)]
pub struct LaidOut {
    pub folder: PathBuf,
    pub tree: Arc<Tree>,
    digest: Digest,
}

impl recent::Kept for LaidOut {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn bytes(&self) -> u64 {
        self.tree.bytes()
    }
}

impl Trees {
    /// Starts empty: what an earlier process kept is removed. `grown` is told when there is more than before.
    pub fn open(folder: PathBuf, store: Store, grown: Arc<Notify>) -> Result<Self, Failure> {
        let opening = || format!("opening {}", folder.display());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).doing(opening),
            _ => {}
        }
        std::fs::create_dir_all(&folder).doing(opening)?;
        let (trees, kept, making) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { folder, store, next: AtomicU64::new(0), trees, kept, making, grown })
    }

    /// The tree that `ContextSync` has answered.
    pub async fn tree(&self, descriptor: &proto::Descriptor) -> Result<Arc<Tree>, Failure> {
        let digest: Digest = descriptor.digest.parse().map_err(Failure::caused)?;
        if let Some(tree) = self.known(&digest) {
            return Ok(tree);
        }
        let get = async { self.store.get_bytes(&digest, Tree::MAX_BYTES).await.map_err(Failure::caused) };
        let bytes = halt::wanted(get).await?;
        let tree = Arc::new(Tree::decode(&bytes).map_err(Failure::caused)?);
        let mut trees = lock(&self.trees);
        trees.push((digest, tree.clone()));
        if trees.len() > MAX_TREES {
            trees.remove(0);
        }
        Ok(tree)
    }

    /// The content of one of a tree's files, which must be small.
    pub async fn content(&self, tree: &Tree, content: &Content) -> Result<Vec<u8>, Failure> {
        let Some(pack) = content.pack else { return Ok(Vec::new()) };
        let pack = &tree.packs[pack].digest;
        let get = async { self.store.get_range(pack, content.offset, content.size).await?.try_collect().await };
        let parts: Vec<Bytes> = halt::wait(get).await?.map_err(Failure::caused)?;
        let bytes = parts.concat();
        match <[u8; 32]>::from(Sha256::digest(&bytes)) == content.sha256 {
            true => Ok(bytes),
            false => Err(Failure::internal("a file's content has another digest")),
        }
    }

    fn known(&self, digest: &Digest) -> Option<Arc<Tree>> {
        let mut trees = lock(&self.trees);
        let at = trees.iter().position(|(known, _)| known == digest)?;
        let found = trees.remove(at);
        let tree = found.1.clone();
        trees.push(found);
        Some(tree)
    }

    /// Whether its files lie on this machine.
    pub fn is_laid_out(&self, descriptor: &proto::Descriptor) -> bool {
        lock(&self.kept).iter().any(|kept| kept.digest.to_string() == descriptor.digest)
    }

    /// A folder with the tree's files, to be read for as long as the result is held.
    pub async fn lay_out(&self, descriptor: &proto::Descriptor) -> Result<Arc<LaidOut>, Failure> {
        let digest: Digest = descriptor.digest.parse().map_err(Failure::caused)?;
        let tree = self.tree(descriptor).await?;
        let turn = self.turn(&digest);
        let _turn = halt::wait(turn.lock()).await?;
        if let Some(kept) = self.find(&digest) {
            return Ok(kept);
        }
        space::ensure(&self.folder, tree.bytes()).doing(|| "unpacking the context".to_owned())?;
        let (folder, old) = match self.take_similar(&tree) {
            Some(kept) => (kept.folder, kept.tree),
            None => {
                let folder = self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
                std::fs::create_dir(&folder).doing(|| format!("making {}", folder.display()))?;
                (folder, Arc::default())
            }
        };
        if let Err(failure) = change::change(&self.store, &folder, old, tree.clone()).await {
            remove(vec![folder]).await;
            return Err(failure);
        }
        let laid_out = Arc::new(LaidOut { folder, tree, digest });
        let given_up = self.keep(laid_out.clone());
        remove(given_up).await;
        self.grown.notify_one();
        Ok(laid_out)
    }

    /// What is kept.
    pub fn kept(&self) -> proto::KeptFiles {
        lock(&self.kept).sum()
    }

    /// Folders that no step reads: their bytes, and when one began to read them last.
    pub fn unused(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        lock(&self.kept).unused()
    }

    /// Removes one unless a step reads it; says whether it went. Blocks.
    pub fn remove_unused(&self, folder: &Path) -> bool {
        let is_gone = lock(&self.kept).take_unused(folder);
        if is_gone {
            recent::remove(&[folder.to_owned()]);
        }
        is_gone
    }

    fn turn(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = lock(&self.making);
        making.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = making.get(digest).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        making.insert(digest.clone(), Arc::downgrade(&turn));
        turn
    }

    fn find(&self, digest: &Digest) -> Option<Arc<LaidOut>> {
        lock(&self.kept).find(|kept| kept.digest == *digest)
    }

    /// Takes out a folder in nobody's use that holds at least half of the tree, and not much else: a Dockerfile alone is
    /// not made of the context that it lies in.
    fn take_similar(&self, tree: &Tree) -> Option<LaidOut> {
        lock(&self.kept).take_best(|kept| {
            let shared = difference::shared(&kept.tree, tree);
            let larger = tree.entries.len().max(kept.tree.entries.len());
            (shared * 2 >= larger).then_some(shared)
        })
    }

    /// Keeps a folder; gives those that go for it.
    fn keep(&self, laid_out: Arc<LaidOut>) -> Vec<PathBuf> {
        let limit = (space::free_bytes(&self.folder) / FREE_SPACE_PART).min(MAX_BYTES);
        let mut kept = lock(&self.kept);
        kept.push(laid_out);
        kept.give_up(MAX_FOLDERS, limit)
    }
}

async fn remove(folders: Vec<PathBuf>) {
    let removed = blocking(move || {
        recent::remove(&folders);
        Ok(())
    });
    let _ = removed.await;
}

/// The lists are whole after every statement, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use contexts::{Entry, Kind};

    use super::*;

    fn tree(files: std::ops::Range<u8>) -> Arc<Tree> {
        let entries = files.map(|number| {
            let content = Content { sha256: [number; 32], size: 1, pack: Some(0), offset: 0 };
            let kind = Kind::File { content, hard_link: None };
            let path = format!("f{number:03}");
            Entry { path, mode: 0o644, uid: 0, gid: 0, mtime_ns: 0, xattrs: Vec::new(), kind }
        });
        Arc::new(Tree { entries: entries.collect(), ..Tree::default() })
    }

    #[test]
    fn a_folder_is_changed_into_a_like_one_only() {
        let temp = tempfile::tempdir().expect("temp folder");
        let trees = Trees::open(temp.path().join("trees"), Store::new(String::new(), String::new()), Arc::default())
            .expect("opened");
        let kept = LaidOut { folder: temp.path().join("0"), tree: tree(0..100), digest: Digest::of(b"") };
        lock(&trees.kept).push(Arc::new(kept));
        for (files, why) in [(0..1, "one of its files"), (99..255, "another with one of its files")] {
            assert!(trees.take_similar(&tree(files)).is_none(), "{why}");
        }
        let used = lock(&trees.kept).find(|_| true).expect("it is there");
        assert!(trees.take_similar(&tree(0..99)).is_none(), "it is in use");
        drop(used);
        assert!(trees.take_similar(&tree(1..101)).is_some());
        assert_eq!(trees.kept().count, 0);
    }
}
