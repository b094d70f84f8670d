use crate::{Database, Error};

/// What a cache mount holds, as it was stored last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheMount {
    /// Names it: a private one has another key than the shared one with the same id.
    pub key: String,
    /// As Dockerfiles name it.
    pub id: String,
    /// `shared`, `private` or `locked`, of the step that used it last.
    pub sharing: String,
    /// Grows with each store, also over a removal. Milliseconds since 1970, or one more than the one before.
    pub version: i64,
    /// Digest of the tree's blob, and its size.
    pub tree: String,
    pub tree_bytes: u64,
    /// Digests and sizes of the packs that it names.
    pub packs: Vec<(String, u64)>,
    pub files: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Who stored it; empty where a person did.
    pub worker_id: String,
    pub description: String,
    pub created_ms: i64,
    pub last_used_ms: i64,
}

type Row = (String, String, String, i64, String, i64, String, i64, i64, String, String, i64, i64);

const COLUMNS_OF_ONE: &str = "SELECT key, id, sharing, version, tree, tree_bytes, packs, files, bytes, worker_id, description, \
                              created_ms, last_used_ms FROM cache_mounts WHERE key = $1";
const COLUMNS_OF_ALL: &str = "SELECT key, id, sharing, version, tree, tree_bytes, packs, files, bytes, worker_id, description, \
                              created_ms, last_used_ms FROM cache_mounts ORDER BY last_used_ms, key";

impl CacheMount {
    /// Digests of the blobs that hold it.
    pub fn blobs(&self) -> impl Iterator<Item = String> + use<> {
        let packs: Vec<String> = self.packs.iter().map(|(digest, _)| digest.clone()).collect();
        packs.into_iter().chain([self.tree.clone()])
    }

    /// What it takes in the layer store, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.tree_bytes + self.packs.iter().map(|(_, size)| size).sum::<u64>()
    }
}

impl Database {
    pub async fn cache_mount(&self, key: &str) -> Result<Option<CacheMount>, Error> {
        let row: Option<Row> = self.read(COLUMNS_OF_ONE).bind(key).optional().await?;
        row.map(from_row).transpose()
    }

    /// All of them, the one used longest ago first.
    pub async fn cache_mounts(&self) -> Result<Vec<CacheMount>, Error> {
        let rows: Vec<Row> = self.read(COLUMNS_OF_ALL).all().await?;
        rows.into_iter().map(from_row).collect()
    }

    /// Notes that a step uses it.
    pub async fn use_cache_mount(&self, key: &str) -> Result<(), Error> {
        let now = self.now_ms();
        self.write("UPDATE cache_mounts SET last_used_ms = $2 WHERE key = $1").bind(key).bind(now).run().await?;
        Ok(())
    }

    /// Stores what a mount holds now in place of the version `replaces` (0: nothing is stored). Gives the new version,
    /// `None` where another one is stored meanwhile. Versions and times of `mount` do not count.
    pub async fn put_cache_mount(&self, mount: &CacheMount, replaces: i64) -> Result<Option<i64>, Error> {
        let CacheMount { key, id, sharing, tree, tree_bytes, packs, files, bytes, worker_id, description, .. } = mount;
        let now = self.now_ms();
        let version = now.max(replaces.saturating_add(1));
        let packs = serde_json::to_string(packs).map_err(|e| Error::Row(e.to_string()))?;
        let number = |bytes: &u64| i64::try_from(*bytes).unwrap_or(i64::MAX);
        let sql = match replaces {
            0 => {
                "INSERT INTO cache_mounts (key, id, sharing, version, tree, tree_bytes, packs, files, bytes, worker_id,
                                           description, created_ms, last_used_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12) ON CONFLICT (key) DO NOTHING"
            }
            _ => {
                "UPDATE cache_mounts SET id = $2, sharing = $3, version = $4, tree = $5, tree_bytes = $6, packs = $7,
                                         files = $8, bytes = $9, worker_id = $10, description = $11, last_used_ms = $12
                 WHERE key = $1 AND version = $13"
            }
        };
        let query = self
            .write(sql)
            .bind(key)
            .bind(id)
            .bind(sharing)
            .bind(version)
            .bind(tree)
            .bind(number(tree_bytes))
            .bind(packs)
            .bind(number(files))
            .bind(number(bytes))
            .bind(worker_id)
            .bind(description)
            .bind(now);
        let query = if replaces == 0 { query } else { query.bind(replaces) };
        Ok((query.run().await? > 0).then_some(version))
    }

    /// Forgets a mount unless it was used since; says whether it went.
    pub async fn forget_cache_mount(&self, mount: &CacheMount) -> Result<bool, Error> {
        let gone = self
            .write("DELETE FROM cache_mounts WHERE key = $1 AND version = $2 AND last_used_ms <= $3")
            .bind(&mount.key)
            .bind(mount.version)
            .bind(mount.last_used_ms)
            .run()
            .await?;
        Ok(gone > 0)
    }
}

fn from_row(row: Row) -> Result<CacheMount, Error> {
    let (key, id, sharing, version, tree, tree_bytes, packs, files, bytes, worker_id, description, created, used) = row;
    let number = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    Ok(CacheMount {
        packs: serde_json::from_str(&packs).map_err(|e| Error::Row(e.to_string()))?,
        key,
        id,
        sharing,
        version,
        tree,
        tree_bytes: number(tree_bytes),
        files: number(files),
        bytes: number(bytes),
        worker_id,
        description,
        created_ms: created,
        last_used_ms: used,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_both;

    on_both! {
        async fn only_who_knows_what_is_stored_replaces_it(db: Database) {
            let mount = |tree: &str| CacheMount {
                key: "k".to_owned(),
                id: "/cache".to_owned(),
                sharing: "shared".to_owned(),
                tree: tree.to_owned(),
                tree_bytes: 7,
                packs: vec![("p".to_owned(), 5)],
                ..CacheMount::default()
            };
            assert_eq!(db.cache_mount("k").await.expect("read"), None);
            let first = db.put_cache_mount(&mount("a"), 0).await.expect("put").expect("nothing was there");
            assert_eq!(db.put_cache_mount(&mount("b"), 0).await.expect("asked"), None, "another was faster");
            let second = db.put_cache_mount(&mount("b"), first).await.expect("put").expect("it was the one");
            assert!(second > first);
            assert_eq!(db.put_cache_mount(&mount("c"), first).await.expect("asked"), None);
            let stored = db.cache_mount("k").await.expect("read").expect("stored");
            assert_eq!((stored.tree.as_str(), stored.version, stored.stored_bytes()), ("b", second, 12));
            assert_eq!(stored.blobs().collect::<Vec<_>>(), ["p", "b"]);
            let older = CacheMount { last_used_ms: stored.last_used_ms - 1, ..stored.clone() };
            assert!(!db.forget_cache_mount(&older).await.expect("asked"), "it was used since");
            assert!(db.forget_cache_mount(&stored).await.expect("asked"));
            assert_eq!(db.cache_mounts().await.expect("read"), []);
        }
    }
}
