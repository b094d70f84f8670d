use crate::{Database, Error};

/// A layer as registries hold it: the blob `digest` unpacks to `diff_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub diff_id: String,
    pub digest: String,
    pub media_type: String,
    pub size: u64,
    /// Where a registry shows it, "docker.io/library/busybox"; empty: it lies in the layer store.
    pub repository: String,
}

type Row = (String, String, String, i64, String);

/// A layer that many repositories show is remembered of so many.
const MAX_REPOSITORIES: i64 = 32;

impl Database {
    /// Remembers them; again is fine.
    pub async fn record_packed(&self, packed: &[Packed]) -> Result<(), Error> {
        if packed.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for row in packed {
            tx.query(
                "INSERT INTO packed (diff_id, digest, repository, media_type, size) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (diff_id, digest, repository) DO NOTHING",
            )
            .bind(&row.diff_id)
            .bind(&row.digest)
            .bind(&row.repository)
            .bind(&row.media_type)
            .bind(i64::try_from(row.size).unwrap_or(i64::MAX))
            .run()
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// What is known of these layers, in their order: first what the layer store itself holds.
    pub async fn packed_of(&self, diff_ids: &[String]) -> Result<Vec<Packed>, Error> {
        let mut found = Vec::new();
        for diff_id in diff_ids {
            let rows: Vec<Row> = self
                .read(
                    "SELECT diff_id, digest, media_type, size, repository FROM packed WHERE diff_id = $1
                     ORDER BY repository LIMIT $2",
                )
                .bind(diff_id)
                .bind(MAX_REPOSITORIES)
                .all()
                .await?;
            found.extend(rows.into_iter().map(from_row));
        }
        Ok(found)
    }

    /// Those that the layer store itself holds.
    pub async fn packed_in_store(&self) -> Result<Vec<Packed>, Error> {
        let rows: Vec<Row> = self
            .read("SELECT diff_id, digest, media_type, size, repository FROM packed WHERE repository = ''")
            .all()
            .await?;
        Ok(rows.into_iter().map(from_row).collect())
    }

    /// Forgets everything about layers that are gone.
    pub async fn forget_packed(&self, diff_ids: &[String]) -> Result<(), Error> {
        if diff_ids.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for diff_id in diff_ids {
            tx.query("DELETE FROM packed WHERE diff_id = $1").bind(diff_id).run().await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

fn from_row((diff_id, digest, media_type, size, repository): Row) -> Packed {
    Packed { diff_id, digest, media_type, size: u64::try_from(size).unwrap_or_default(), repository }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_both;

    on_both! {
        async fn what_lies_in_the_store_comes_first(db: Database) {
            let packed = |diff_id: &str, repository: &str| Packed {
                diff_id: diff_id.to_owned(),
                digest: format!("sha256:packed-{diff_id}"),
                media_type: "tar+gzip".to_owned(),
                size: 5,
                repository: repository.to_owned(),
            };
            let (shown, stored, other) = (packed("a", "docker.io/x"), packed("a", ""), packed("b", "docker.io/x"));
            db.record_packed(&[shown.clone(), stored.clone(), other.clone()]).await.expect("recorded");
            db.record_packed(std::slice::from_ref(&shown)).await.expect("recorded again");
            let asked = ["b", "a", "c"].map(str::to_owned);
            assert_eq!(db.packed_of(&asked).await.expect("read"), [other.clone(), stored.clone(), shown]);
            assert_eq!(db.packed_in_store().await.expect("read"), [stored]);
            db.forget_packed(&["a".to_owned()]).await.expect("forgotten");
            assert_eq!(db.packed_of(&asked).await.expect("read"), [other]);
        }
    }
}
