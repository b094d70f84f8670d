use serde::{Deserialize, Serialize};

use crate::{Database, Error, now_ms};

/// An image's record. `config` holds the exact bytes that `id` is the digest of.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: String,
    pub config: Vec<u8>,
    /// Base layer first.
    pub layers: Vec<Layer>,
    /// The classic builder's parent, or empty.
    pub parent_id: String,
    pub recorded_ms: i64,
    /// Familiar names.
    pub tags: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Layer {
    pub diff_id: String,
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub content_bytes: u64,
}

type Row = (String, Vec<u8>, String, String, i64);

impl Database {
    /// Records an image (again is fine) and points its tags to it. One that was loaded gets its parent when a build
    /// makes it again.
    pub async fn record_image(&self, image: &Image) -> Result<(), Error> {
        let mut tx = self.writer.begin().await?;
        let layers = serde_json::to_string(&image.layers).map_err(|e| Error::Row(e.to_string()))?;
        sqlx::query(
            "INSERT INTO images (id, config, layers, parent_id, recorded_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (id) DO UPDATE SET parent_id = excluded.parent_id
             WHERE images.parent_id = '' AND excluded.parent_id <> images.id",
        )
        .bind(&image.id)
        .bind(&image.config)
        .bind(layers)
        .bind(&image.parent_id)
        .bind(now_ms())
        .execute(&mut *tx)
        .await?;
        for tag in &image.tags {
            sqlx::query(
                "INSERT INTO tags (name, image_id, tagged_ms) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id, tagged_ms = excluded.tagged_ms",
            )
            .bind(tag)
            .bind(&image.id)
            .bind(now_ms())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Every image with its tags, newest record first.
    pub async fn images(&self) -> Result<Vec<Image>, Error> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, config, layers, parent_id, recorded_ms FROM images ORDER BY recorded_ms DESC, id",
        )
        .fetch_all(&self.readers)
        .await?;
        let tags: Vec<(String, String)> =
            sqlx::query_as("SELECT image_id, name FROM tags ORDER BY name").fetch_all(&self.readers).await?;
        let mut by_image = std::collections::HashMap::<String, Vec<String>>::new();
        for (image_id, name) in tags {
            by_image.entry(image_id).or_default().push(name);
        }
        rows.into_iter()
            .map(|row| {
                let tags = by_image.remove(&row.0).unwrap_or_default();
                from_row(row, tags)
            })
            .collect()
    }

    pub async fn image(&self, id: &str) -> Result<Option<Image>, Error> {
        let row: Option<Row> =
            sqlx::query_as("SELECT id, config, layers, parent_id, recorded_ms FROM images WHERE id = $1")
                .bind(id)
                .fetch_optional(&self.readers)
                .await?;
        let Some(row) = row else { return Ok(None) };
        let tags: Vec<(String,)> = sqlx::query_as("SELECT name FROM tags WHERE image_id = $1 ORDER BY name")
            .bind(id)
            .fetch_all(&self.readers)
            .await?;
        from_row(row, tags.into_iter().map(|tag| tag.0).collect()).map(Some)
    }

    /// Ids of images whose hex digits begin so.
    pub async fn image_ids_by_prefix(&self, hex: &str) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT id FROM images WHERE substr(id, 8, $1) = $2 LIMIT 2")
            .bind(hex.len() as i64)
            .bind(hex)
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    pub async fn tag(&self, name: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = sqlx::query_as("SELECT image_id FROM tags WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|row| row.0))
    }

    /// Points a tag to an image; false when the image is gone.
    pub async fn tag_image(&self, id: &str, name: &str) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO tags (name, image_id, tagged_ms) SELECT $1, id, $3 FROM images WHERE id = $2
             ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id, tagged_ms = excluded.tagged_ms",
        )
        .bind(name)
        .bind(id)
        .bind(now_ms())
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    pub async fn untag(&self, name: &str) -> Result<(), Error> {
        sqlx::query("DELETE FROM tags WHERE name = $1").bind(name).execute(&self.writer).await?;
        Ok(())
    }

    pub async fn children(&self, id: &str) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT id FROM images WHERE parent_id = $1").bind(id).fetch_all(&self.readers).await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// Removes the record with its tags and the steps that made it.
    pub async fn forget_image(&self, id: &str) -> Result<(), Error> {
        let mut tx = self.writer.begin().await?;
        for statement in [
            "DELETE FROM steps WHERE image_id = $1",
            "DELETE FROM tags WHERE image_id = $1",
            "DELETE FROM images WHERE id = $1",
        ] {
            sqlx::query(statement).bind(id).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

fn from_row((id, config, layers, parent_id, recorded_ms): Row, tags: Vec<String>) -> Result<Image, Error> {
    let layers = serde_json::from_str(&layers).map_err(|e| Error::Row(format!("layers of {id}: {e}")))?;
    Ok(Image { id, config, layers, parent_id, recorded_ms, tags })
}
