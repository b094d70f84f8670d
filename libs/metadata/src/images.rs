use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::unless_gone;
use crate::holds::{hold, lock_image};
use crate::query::Tx;
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
    /// Familiar names by digest, `busybox@sha256:...`.
    pub digests: Vec<String>,
    /// Tags that mean it for its platform only; ignored where an image is recorded.
    pub platform_of: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Layer {
    pub diff_id: String,
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub content_bytes: u64,
}

const POINT_TAG: &str = "INSERT INTO tags (name, image_id, tagged_ms) VALUES ($1, $2, $3)
     ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id, tagged_ms = excluded.tagged_ms";

/// A digest that names an index means the image of the platform that was fetched last.
const POINT_DIGEST: &str = "INSERT INTO digests (name, image_id) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id";

type Row = (String, Vec<u8>, String, String, i64);

impl Database {
    /// Records an image (again is fine) and points its tags and digests to it. One that was loaded gets its parent when
    /// a build makes it again; a parent that is gone counts as none.
    pub async fn record_image(&self, image: &Image) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        record(&mut tx, image).await?;
        tx.commit().await
    }

    /// Like [`Self::record_image`]; the build that made it stands on it.
    pub async fn record_image_for(&self, build_id: &str, image: &Image) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        record(&mut tx, image).await?;
        hold(&mut tx, build_id, &image.id).await?;
        tx.commit().await
    }

    /// Every image with its tags, newest record first.
    pub async fn images(&self) -> Result<Vec<Image>, Error> {
        let rows: Vec<Row> = self
            .read("SELECT id, config, layers, parent_id, recorded_ms FROM images ORDER BY recorded_ms DESC, id")
            .all()
            .await?;
        let tags: Vec<(String, String)> = self.read("SELECT image_id, name FROM tags ORDER BY name").all().await?;
        let digests: Vec<(String, String)> =
            self.read("SELECT image_id, name FROM digests ORDER BY name").all().await?;
        let platforms: Vec<(String, String)> =
            self.read("SELECT image_id, name FROM tag_platforms ORDER BY name").all().await?;
        let (mut tags, mut digests, mut platforms) = (by_image(tags), by_image(digests), by_image(platforms));
        rows.into_iter()
            .map(|row| {
                let names = |of: &mut HashMap<String, Vec<String>>| of.remove(&row.0).unwrap_or_default();
                let names = (names(&mut tags), names(&mut digests), names(&mut platforms));
                from_row(row, names)
            })
            .collect()
    }

    pub async fn image(&self, id: &str) -> Result<Option<Image>, Error> {
        let row: Option<Row> = self
            .read("SELECT id, config, layers, parent_id, recorded_ms FROM images WHERE id = $1")
            .bind(id)
            .optional()
            .await?;
        let Some(row) = row else { return Ok(None) };
        let tags: Vec<(String,)> =
            self.read("SELECT name FROM tags WHERE image_id = $1 ORDER BY name").bind(id).all().await?;
        let digests: Vec<(String,)> =
            self.read("SELECT name FROM digests WHERE image_id = $1 ORDER BY name").bind(id).all().await?;
        let platforms: Vec<(String,)> =
            self.read("SELECT name FROM tag_platforms WHERE image_id = $1 ORDER BY name").bind(id).all().await?;
        let names = |rows: Vec<(String,)>| rows.into_iter().map(|row| row.0).collect();
        from_row(row, (names(tags), names(digests), names(platforms))).map(Some)
    }

    /// Id and layers of every image, newest record first.
    pub async fn image_layers(&self) -> Result<Vec<(String, Vec<Layer>)>, Error> {
        let rows: Vec<(String, String)> =
            self.read("SELECT id, layers FROM images ORDER BY recorded_ms DESC, id").all().await?;
        let parse = |(id, json): (String, String)| parse_layers(&id, &json).map(|layers| (id, layers));
        rows.into_iter().map(parse).collect()
    }

    /// Ids of images whose hex digits begin so.
    pub async fn image_ids_by_prefix(&self, hex: &str) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .read("SELECT id FROM images WHERE substr(id, 8, CAST($1 AS INTEGER)) = $2 LIMIT 2")
            .bind(hex.len() as i64)
            .bind(hex)
            .all()
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    pub async fn tag(&self, name: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> =
            self.read("SELECT image_id FROM tags WHERE name = $1").bind(name).optional().await?;
        Ok(row.map(|row| row.0))
    }

    /// Points a tag to an image; false when the image is gone.
    pub async fn tag_image(&self, id: &str, name: &str) -> Result<bool, Error> {
        unless_gone(self.try_tag_image(id, name).await)
    }

    async fn try_tag_image(&self, id: &str, name: &str) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let done = point(&mut tx, id, name).await?;
        tx.commit().await?;
        Ok(done)
    }

    /// False when the name was another image's meanwhile, or nobody's.
    pub async fn untag(&self, name: &str, id: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM tags WHERE name = $1 AND image_id = $2";
        Ok(self.write(sql).bind(name).bind(id).run().await? > 0)
    }

    /// The image of a familiar name by digest.
    pub async fn digest(&self, name: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> =
            self.read("SELECT image_id FROM digests WHERE name = $1").bind(name).optional().await?;
        Ok(row.map(|row| row.0))
    }

    /// Names an image by digest; false when it is gone.
    pub async fn point_digest(&self, id: &str, name: &str) -> Result<bool, Error> {
        unless_gone(self.write(POINT_DIGEST).bind(name).bind(id).run().await)
    }

    /// False when the name was another image's meanwhile, or nobody's.
    pub async fn forget_digest(&self, name: &str, id: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM digests WHERE name = $1 AND image_id = $2";
        Ok(self.write(sql).bind(name).bind(id).run().await? > 0)
    }

    pub async fn children(&self, id: &str) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self.read("SELECT id FROM images WHERE parent_id = $1").bind(id).all().await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}

async fn record(tx: &mut Tx, image: &Image) -> Result<(), Error> {
    let layers = serde_json::to_string(&image.layers).map_err(|e| Error::Row(e.to_string()))?;
    let parent_id = match image.parent_id.as_str() {
        "" => "",
        parent if lock_image(tx, parent).await? => parent,
        _ => "",
    };
    tx.query(
        "INSERT INTO images (id, config, layers, parent_id, recorded_ms) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO UPDATE SET parent_id = excluded.parent_id
         WHERE images.parent_id = '' AND excluded.parent_id <> images.id",
    )
    .bind(&image.id)
    .bind(&image.config)
    .bind(layers)
    .bind(parent_id)
    .bind(now_ms())
    .run()
    .await?;
    // In one order: another gateway may point the same names elsewhere.
    for tag in image.tags.iter().collect::<std::collections::BTreeSet<_>>() {
        point(tx, &image.id, tag).await?;
    }
    for name in image.digests.iter().collect::<std::collections::BTreeSet<_>>() {
        tx.query(POINT_DIGEST).bind(name).bind(&image.id).run().await?;
    }
    Ok(())
}

/// Points a tag to an image. What it meant for each platform is over where it is another one.
pub(crate) async fn point(tx: &mut Tx, id: &str, name: &str) -> Result<u64, Error> {
    tx.query(
        "DELETE FROM tag_platforms
         WHERE name = $1 AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.name = $1 AND tags.image_id = $2)",
    )
    .bind(name)
    .bind(id)
    .run()
    .await?;
    tx.query(POINT_TAG).bind(name).bind(id).bind(now_ms()).run().await
}

fn by_image(rows: Vec<(String, String)>) -> HashMap<String, Vec<String>> {
    let mut by_image = HashMap::<String, Vec<String>>::new();
    for (image_id, name) in rows {
        by_image.entry(image_id).or_default().push(name);
    }
    by_image
}

/// Tags, digests, and tags that mean it for its platform.
type Names = (Vec<String>, Vec<String>, Vec<String>);

fn from_row(
    (id, config, layers, parent_id, recorded_ms): Row,
    (tags, digests, platform_of): Names,
) -> Result<Image, Error> {
    let layers = parse_layers(&id, &layers)?;
    Ok(Image { id, config, layers, parent_id, recorded_ms, tags, digests, platform_of })
}

pub(crate) fn parse_layers(id: &str, json: &str) -> Result<Vec<Layer>, Error> {
    serde_json::from_str(json).map_err(|e| Error::Row(format!("layers of {id}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{image, on_both};

    const A: &str = "sha256:aaaa";
    const B: &str = "sha256:aabb";

    on_both! {
        async fn an_image_is_found_by_its_names_and_the_beginning_of_its_id(db: Database) {
            let names = ["z:1", "Z:1", "a-b:1", "a:1", "ab:1"].map(str::to_owned).to_vec();
            db.record_image(&Image { tags: names, ..image(A) }).await.expect("recorded");
            db.record_image(&Image { tags: vec!["a:1".to_owned()], ..image(B) }).await.expect("recorded");
            let found = db.image(A).await.expect("read").expect("it is there");
            assert_eq!(found.tags, ["Z:1", "a-b:1", "ab:1", "z:1"], "in the order of their bytes");
            assert_eq!(db.tag("a:1").await.expect("read").as_deref(), Some(B));
            assert_eq!(db.image_ids_by_prefix("aab").await.expect("read"), [B]);
            assert_eq!(db.image_ids_by_prefix("aa").await.expect("read").len(), 2);
            assert!(db.tag_image(A, "a:1").await.expect("asked"));
            assert!(!db.tag_image("sha256:gone", "a:1").await.expect("asked"), "an image that is gone gets no name");
            assert!(!db.record_step("key", "sha256:gone").await.expect("asked"));
            assert!(db.record_step("key", B).await.expect("recorded"));
            let by_digest = format!("a@sha256:{}", "c".repeat(64));
            assert!(!db.point_digest("sha256:gone", &by_digest).await.expect("asked"));
            assert!(db.point_digest(A, &by_digest).await.expect("recorded"));
            db.record_image(&Image { digests: vec![by_digest.clone()], ..image(B) }).await.expect("recorded");
            assert_eq!(db.digest(&by_digest).await.expect("read").as_deref(), Some(B));
            assert_eq!(db.image(B).await.expect("read").expect("it is there").digests, [by_digest.as_str()]);
            assert!(db.untag("a-b:1", A).await.expect("untagged"));
            assert!(!db.forget_image(B, crate::Containers::Keep).await.expect("asked"), "a digest is a name too");
            assert!(!db.forget_digest(&by_digest, A).await.expect("asked"), "the name is not the other's");
            assert!(db.forget_digest(&by_digest, B).await.expect("forgotten"));
            assert_eq!(db.digest(&by_digest).await.expect("read"), None);
            assert!(db.forget_image(B, crate::Containers::Keep).await.expect("forgotten"));
            assert_eq!(db.step("key").await.expect("read"), None);
            assert_eq!(db.images().await.expect("read").len(), 1);
        }
    }
}
