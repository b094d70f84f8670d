//! Tags that mean an image for each of several platforms.

use crate::error::unless_gone;
use crate::images::point;
use crate::{Database, Error};

/// What a tag means for one platform.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct TagPlatform {
    /// "linux/arm64"
    pub platform: String,
    pub image_id: String,
}

impl Database {
    /// Points a tag to an image for each platform, and itself to `own`, which is one of them; false when one is gone.
    pub async fn tag_platforms(&self, name: &str, own: &str, platforms: &[TagPlatform]) -> Result<bool, Error> {
        unless_gone(self.try_tag_platforms(name, own, platforms).await)
    }

    async fn try_tag_platforms(&self, name: &str, own: &str, platforms: &[TagPlatform]) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        point(&mut tx, own, name).await?;
        tx.query("DELETE FROM tag_platforms WHERE name = $1").bind(name).run().await?;
        for TagPlatform { platform, image_id } in platforms {
            tx.query("INSERT INTO tag_platforms (name, platform, image_id) VALUES ($1, $2, $3)")
                .bind(name)
                .bind(platform)
                .bind(image_id)
                .run()
                .await?;
        }
        tx.commit().await?;
        Ok(1)
    }

    /// What a tag means for each platform, in the order of their names; nothing where it means one image only.
    pub async fn platforms_of_tag(&self, name: &str) -> Result<Vec<TagPlatform>, Error> {
        self.read("SELECT platform, image_id FROM tag_platforms WHERE name = $1 ORDER BY platform")
            .bind(name)
            .all()
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{image, on_both};
    use crate::{Containers, Image};

    on_both! {
        async fn a_tag_holds_the_images_of_its_platforms(db: Database) {
            for id in ["amd", "arm", "other"] {
                db.record_image(&image(id)).await.expect("recorded");
            }
            let row = |platform: &str, id: &str| TagPlatform { platform: platform.to_owned(), image_id: id.to_owned() };
            let rows = [row("linux/amd64", "amd"), row("linux/arm64", "arm")];
            assert!(db.tag_platforms("a:1", "amd", &rows).await.expect("tagged"));
            assert!(!db.tag_platforms("b:1", "amd", &[row("x", "gone")]).await.expect("asked"));
            assert_eq!(db.tag("b:1").await.expect("read"), None, "all or nothing");
            assert_eq!(db.tag("a:1").await.expect("read").as_deref(), Some("amd"));
            assert_eq!(db.platforms_of_tag("a:1").await.expect("read"), rows);
            assert_eq!(db.image("arm").await.expect("read").expect("there").platform_of, ["a:1"]);
            let names: Vec<(String, usize)> =
                db.images().await.expect("read").into_iter().map(|it| (it.id, it.platform_of.len())).collect();
            assert!(names.contains(&("arm".to_owned(), 1)) && names.contains(&("other".to_owned(), 0)));
            assert!(!db.forget_image("arm", Containers::Ignore).await.expect("asked"), "the tag holds it");

            assert!(db.tag_image("amd", "a:1").await.expect("tagged"), "the same again changes nothing");
            assert_eq!(db.platforms_of_tag("a:1").await.expect("read").len(), 2);
            db.record_image(&Image { tags: vec!["a:1".to_owned()], ..image("other") }).await.expect("recorded");
            assert_eq!(db.platforms_of_tag("a:1").await.expect("read"), [], "it means one image now");
            assert!(db.forget_image("arm", Containers::Ignore).await.expect("asked"));

            assert!(db.tag_platforms("a:1", "amd", &rows[..1]).await.expect("tagged"));
            assert!(db.untag("a:1", "amd").await.expect("untagged"));
            assert!(db.forget_image("amd", Containers::Ignore).await.expect("asked"), "the rows went with the tag");
        }
    }
}
