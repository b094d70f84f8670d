use crate::{Database, Error};

/// A context as a client last sent it, with the blobs that hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextTree {
    /// Names what was asked for: the source and the patterns.
    pub id: String,
    /// Names the client's folder.
    pub source: String,
    /// Digest of the tree's blob, and its size.
    pub tree: String,
    pub tree_bytes: u64,
    /// Digests and sizes of the packs that it names.
    pub packs: Vec<(String, u64)>,
}

type Row = (String, String, String, i64, String);

impl Database {
    /// Remembers what a client has sent, in place of what it sent before for the same id.
    pub async fn record_context(&self, tree: &ContextTree) -> Result<(), Error> {
        let packs = serde_json::to_string(&tree.packs).map_err(|e| Error::Row(e.to_string()))?;
        self.write(
            "INSERT INTO context_trees (id, source, tree, tree_bytes, packs, used_ms) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET tree = excluded.tree, tree_bytes = excluded.tree_bytes,
                                            packs = excluded.packs, used_ms = excluded.used_ms",
        )
        .bind(&tree.id)
        .bind(&tree.source)
        .bind(&tree.tree)
        .bind(i64::try_from(tree.tree_bytes).unwrap_or(i64::MAX))
        .bind(packs)
        .bind(self.now_ms())
        .run()
        .await?;
        Ok(())
    }

    /// The last trees of one source, the one used last first.
    pub async fn contexts_of(&self, source: &str, limit: u32) -> Result<Vec<ContextTree>, Error> {
        let sql = "SELECT id, source, tree, tree_bytes, packs FROM context_trees WHERE source = $1
                   ORDER BY used_ms DESC, id LIMIT $2";
        self.last_contexts(sql, source, limit).await
    }

    /// The last trees of all other sources, the one used last first.
    pub async fn contexts_of_others(&self, source: &str, limit: u32) -> Result<Vec<ContextTree>, Error> {
        let sql = "SELECT id, source, tree, tree_bytes, packs FROM context_trees WHERE source <> $1
                   ORDER BY used_ms DESC, id LIMIT $2";
        self.last_contexts(sql, source, limit).await
    }

    async fn last_contexts(&self, sql: &'static str, source: &str, limit: u32) -> Result<Vec<ContextTree>, Error> {
        let rows: Vec<Row> = self.read(sql).bind(source).bind(i64::from(limit)).all().await?;
        rows.into_iter().map(from_row).collect()
    }

    /// All trees, the one used last first.
    pub async fn contexts(&self) -> Result<Vec<ContextTree>, Error> {
        let rows: Vec<Row> = self
            .read("SELECT id, source, tree, tree_bytes, packs FROM context_trees ORDER BY used_ms DESC, id")
            .all()
            .await?;
        rows.into_iter().map(from_row).collect()
    }

    /// Forgets a tree, if it is still this one.
    pub async fn forget_context(&self, id: &str, tree: &str) -> Result<bool, Error> {
        let done =
            self.write("DELETE FROM context_trees WHERE id = $1 AND tree = $2").bind(id).bind(tree).run().await?;
        Ok(done > 0)
    }
}

fn from_row((id, source, tree, tree_bytes, packs): Row) -> Result<ContextTree, Error> {
    let packs = serde_json::from_str(&packs).map_err(|e| Error::Row(e.to_string()))?;
    Ok(ContextTree { id, source, tree, tree_bytes: u64::try_from(tree_bytes).unwrap_or_default(), packs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_both;

    on_both! {
        async fn a_source_is_found_by_what_was_sent_last(db: Database) {
            let tree = |id: &str, source: &str, tree: &str| ContextTree {
                id: id.to_owned(),
                source: source.to_owned(),
                tree: tree.to_owned(),
                tree_bytes: 7,
                packs: vec![("sha256:p".to_owned(), 5)],
            };
            for (id, source, digest) in [("a", "s", "1"), ("b", "s", "2"), ("c", "t", "3"), ("a", "s", "4")] {
                db.record_context(&tree(id, source, digest)).await.expect("recorded");
                tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            }
            let of = db.contexts_of("s", 5).await.expect("read");
            assert_eq!(of, [tree("a", "s", "4"), tree("b", "s", "2")]);
            assert_eq!(db.contexts_of("s", 1).await.expect("read").len(), 1);
            assert_eq!(db.contexts_of_others("s", 5).await.expect("read"), [tree("c", "t", "3")]);
            assert_eq!(db.contexts().await.expect("read").len(), 3);
            assert!(!db.forget_context("a", "1").await.expect("asked"), "it has another tree now");
            assert!(db.forget_context("a", "4").await.expect("asked"));
            assert_eq!(db.contexts_of("s", 5).await.expect("read"), [tree("b", "s", "2")]);
        }
    }
}
