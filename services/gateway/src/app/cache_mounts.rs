//! What `RUN --mount=type=cache` keeps: stored by workers behind their steps, brought to whichever worker runs the next.
//!
//! The last who stores counts, and who stores says which version it knows: so of two workers one sees that the other was
//! faster, and merges. Blobs of a version that was replaced go, as far as nothing else names them.

use std::collections::HashSet;

use metadata::CacheMount;
use model::{Digest, cache_key};

use super::{App, Failure, Outcome};

impl App {
    /// What a mount holds; version 0 where nothing is stored.
    pub async fn cache_mount(&self, request: proto::CacheMountGet) -> Outcome<proto::CacheMount> {
        let found = self.db.cache_mount(&request.key).await?;
        if request.used && found.is_some() {
            self.db.use_cache_mount(&request.key).await?;
        }
        Ok(found.map(to_wire).unwrap_or_default())
    }

    /// Stores what a step left in a mount, unless another has stored meanwhile.
    ///
    /// # Errors
    /// `InvalidArgument` for a mount without a name or content, under a key that is not its own, or of blobs that are none.
    pub async fn put_cache_mount(
        &self,
        user: &str,
        request: proto::CacheMountPut,
    ) -> Outcome<proto::CacheMountPutReply> {
        let mount = request.mount.ok_or_else(|| Failure::invalid("a cache without content"))?;
        let worker_id = user.strip_prefix("worker-").unwrap_or(user).to_owned();
        let stored = self.store_cache_mount(from_wire(mount, worker_id)?, request.replaces).await?;
        let key = match stored {
            Ok(mount) => return Ok(proto::CacheMountPutReply { stored: true, mount: Some(to_wire(mount)) }),
            Err(key) => key,
        };
        let now = self.db.cache_mount(&key).await?.map(to_wire).unwrap_or_default();
        Ok(proto::CacheMountPutReply { stored: false, mount: Some(now) })
    }

    /// The mount as it is stored now; its key where another version than `replaces` was there.
    pub(super) async fn store_cache_mount(
        &self,
        mount: CacheMount,
        replaces: u64,
    ) -> Outcome<Result<CacheMount, String>> {
        let before = self.db.cache_mount(&mount.key).await?;
        let Some(version) = self.db.put_cache_mount(&mount, replaces.cast_signed()).await? else {
            return Ok(Err(mount.key));
        };
        let kept: HashSet<String> = mount.blobs().collect();
        let gone = before.into_iter().flat_map(|before| before.blobs()).filter(|blob| !kept.contains(blob));
        let gone: Vec<String> = gone.collect();
        if !gone.is_empty() {
            self.release_blobs(gone).await;
        }
        self.cache_grew.notify_one();
        Ok(Ok(CacheMount { version, ..mount }))
    }
}

fn to_wire(mount: CacheMount) -> proto::CacheMount {
    let descriptor = |digest: String, size| proto::Descriptor { media_type: String::new(), digest, size };
    proto::CacheMount {
        key: mount.key,
        id: mount.id,
        sharing: mount.sharing,
        version: mount.version.cast_unsigned(),
        tree: Some(proto::Descriptor {
            media_type: contexts::Tree::MEDIA_TYPE.to_owned(),
            ..descriptor(mount.tree, mount.tree_bytes)
        }),
        packs: mount.packs.into_iter().map(|(digest, size)| descriptor(digest, size)).collect(),
        files: mount.files,
        bytes: mount.bytes,
        worker_id: mount.worker_id,
        description: mount.description,
    }
}

fn from_wire(wire: proto::CacheMount, worker_id: String) -> Outcome<CacheMount> {
    let proto::CacheMount { key, id, sharing, version: _, tree, packs, files, bytes, worker_id: _, description } = wire;
    let tree = tree.ok_or_else(|| Failure::invalid("a cache without content"))?;
    if id.is_empty() || key != cache_key(&id, &sharing) {
        return Err(Failure::invalid(format!("cache {id:?} has another key than {key:?}")));
    }
    // One that is none would keep the others from being let go of.
    let is_wrong = |digest: &&String| digest.parse::<Digest>().is_err();
    if let Some(digest) = packs.iter().map(|pack| &pack.digest).chain([&tree.digest]).find(is_wrong) {
        return Err(Failure::invalid(format!("cache {id:?} has a blob {digest:?}")));
    }
    let packs = packs.into_iter().map(|pack| (pack.digest, pack.size)).collect();
    Ok(CacheMount {
        key,
        id,
        sharing,
        tree: tree.digest,
        tree_bytes: tree.size,
        packs,
        files,
        bytes,
        worker_id,
        description,
        ..CacheMount::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_stores_a_cache_under_its_own_key_only() {
        let blob = |digest: &str| proto::Descriptor { digest: digest.to_owned(), ..Default::default() };
        let digest = Digest::of(b"x").to_string();
        let mount = |key: &str, tree: &str, pack: &str| proto::CacheMount {
            key: key.to_owned(),
            id: "npm".to_owned(),
            sharing: "private".to_owned(),
            tree: Some(blob(tree)),
            packs: vec![blob(pack)],
            ..Default::default()
        };
        let key = cache_key("npm", "private");
        for (mount, is_taken) in [
            (mount(&key, &digest, &digest), true),
            (mount(&cache_key("npm", "shared"), &digest, &digest), false),
            (mount("k", &digest, &digest), false),
            (mount(&key, "sha256:1", &digest), false),
            (mount(&key, &digest, ""), false),
            (proto::CacheMount { tree: None, ..mount(&key, &digest, &digest) }, false),
        ] {
            assert_eq!(from_wire(mount.clone(), "w".to_owned()).is_ok(), is_taken, "{mount:?}");
        }
    }
}
