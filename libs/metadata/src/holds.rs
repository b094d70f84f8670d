//! What keeps an image: names, children, containers, and the running builds that stand on it. Whether it goes is decided in
//! one transaction, so that whoever takes hold of it meanwhile either comes first or finds it gone.

use crate::query::Tx;
use crate::{Database, Error};

/// An image that containers stand on goes only when somebody insists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containers {
    Keep,
    Ignore,
}

impl Database {
    /// The image outlives a removal until the build has ended; false when it is gone.
    pub async fn hold_image(&self, build_id: &str, image_id: &str) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let held = hold(&mut tx, build_id, image_id).await;
        match held {
            Err(error) if error.is_foreign_key_violation() => return Ok(false),
            other => other?,
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Whether a build that is not over stands on the image.
    pub async fn is_in_build(&self, image_id: &str) -> Result<bool, Error> {
        let held: Option<(String,)> = self
            .read(
                "SELECT build_id FROM build_images WHERE image_id = $1
                 AND build_id IN (SELECT id FROM builds WHERE state IN ('waiting', 'running')) LIMIT 1",
            )
            .bind(image_id)
            .optional()
            .await?;
        Ok(held.is_some())
    }

    /// The build is over.
    pub async fn release_images(&self, build_id: &str) -> Result<(), Error> {
        self.write("DELETE FROM build_images WHERE build_id = $1").bind(build_id).run().await?;
        Ok(())
    }

    /// Removes the record of an image, with the steps that made it, if nothing keeps it; says whether it went by this call.
    pub async fn forget_image(&self, id: &str, containers: Containers) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        if !lock_image(&mut tx, id).await? {
            return Ok(false);
        }
        // A build's hold may have come when the build was over already.
        tx.query(
            "DELETE FROM build_images WHERE image_id = $1
             AND build_id IN (SELECT id FROM builds WHERE state NOT IN ('waiting', 'running'))",
        )
        .bind(id)
        .run()
        .await?;
        let mut keepers = vec!["SELECT id FROM images WHERE parent_id = $1 LIMIT 1"];
        if containers == Containers::Keep {
            keepers.push("SELECT id FROM containers WHERE image_id = $1 LIMIT 1");
        }
        for keeper in keepers {
            if tx.query(keeper).bind(id).optional::<(String,)>().await?.is_some() {
                return Ok(false);
            }
        }
        for statement in ["DELETE FROM steps WHERE image_id = $1", "DELETE FROM images WHERE id = $1"] {
            match tx.query(statement).bind(id).run().await {
                // A name or a build holds it.
                Err(error) if error.is_foreign_key_violation() => return Ok(false),
                other => other?,
            };
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// # Errors
/// A violated foreign key when the image is gone.
pub(crate) async fn hold(tx: &mut Tx, build_id: &str, image_id: &str) -> Result<(), Error> {
    tx.query(
        "INSERT INTO build_images (build_id, image_id)
         SELECT id, $2 FROM builds WHERE id = $1 AND state IN ('waiting', 'running')
         ON CONFLICT DO NOTHING",
    )
    .bind(build_id)
    .bind(image_id)
    .run()
    .await?;
    Ok(())
}

/// Whoever decides on an image, or stands something on it, waits for the other here; false when it is gone.
pub(crate) async fn lock_image(tx: &mut Tx, id: &str) -> Result<bool, Error> {
    let sql = "UPDATE images SET recorded_ms = recorded_ms WHERE id = $1";
    Ok(tx.query(sql).bind(id).run().await? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{container, image, on_both};
    use crate::{Demand, Image};

    on_both! {
        async fn an_image_goes_when_nothing_keeps_it(db: Database) {
            db.begin_session("g", "s", 60_000).await.expect("begun");
            let forget = async |containers| db.forget_image("i", containers).await.expect("asked");
            db.record_image(&Image { tags: vec!["a:1".to_owned()], ..image("i") }).await.expect("recorded");
            assert!(!forget(Containers::Ignore).await, "it has a name");
            assert!(!db.untag("a:1", "other").await.expect("asked"), "the name is not the other's");
            assert!(db.untag("a:1", "i").await.expect("untagged"));

            db.queue_build("b", b"", &Demand::default()).await.expect("queued");
            assert!(db.hold_image("b", "i").await.expect("held"));
            assert!(db.hold_image("b", "i").await.expect("held"), "again is fine");
            assert!(db.is_in_build("i").await.expect("read"));
            assert!(!forget(Containers::Ignore).await, "a build stands on it");
            db.cancel_build("b").await.expect("cancelled");
            assert!(!db.is_in_build("i").await.expect("read"), "the build is over");

            db.record_image(&Image { parent_id: "i".to_owned(), ..image("child") }).await.expect("recorded");
            assert!(!forget(Containers::Ignore).await, "a child stands on it");
            assert!(db.forget_image("child", Containers::Keep).await.expect("asked"));

            db.insert_container(&container("c", "x")).await.expect("inserted");
            assert!(!forget(Containers::Keep).await, "a container stands on it");
            assert!(forget(Containers::Ignore).await);
            assert!(!forget(Containers::Ignore).await, "it is gone already");

            assert!(!db.hold_image("b2", "i").await.expect("asked") || db.build("b2").await.expect("read").is_none());
            db.queue_build("b3", b"", &Demand::default()).await.expect("queued");
            assert!(!db.hold_image("b3", "i").await.expect("asked"), "it is gone");
            let late = db.insert_container(&container("late", "y")).await;
            assert!(matches!(late, Err(Error::NoImage(id)) if id == "i"));
            db.record_image(&Image { parent_id: "i".to_owned(), ..image("orphan") }).await.expect("recorded");
            let orphan = db.image("orphan").await.expect("read").expect("it is there");
            assert_eq!(orphan.parent_id, "", "a parent that is gone is none");
        }

        async fn an_image_that_a_build_makes_is_held_from_its_first_moment(db: Database) {
            db.begin_session("g", "s", 60_000).await.expect("begun");
            db.queue_build("b", b"", &Demand::default()).await.expect("queued");
            db.record_image_for("b", &image("i")).await.expect("recorded");
            assert!(!db.forget_image("i", Containers::Keep).await.expect("asked"));
            db.release_images("b").await.expect("released");
            assert!(db.forget_image("i", Containers::Keep).await.expect("asked"));
        }
    }

    /// Two gateways, each with its own connections: whatever the order, nothing stands on an image that is gone.
    #[tokio::test]
    async fn removals_and_holds_of_two_gateways_do_not_cross() {
        let server = kit::Postgres::start();
        let one = crate::testing::postgres(&server, "crossing").await;
        let other = crate::testing::postgres_again(&server, "crossing").await;
        one.begin_session("one", "one", 60_000).await.expect("begun");
        let (mut gone, mut kept) = (0, 0);
        for round in 0..60 {
            let (id, build) = (format!("i{round}"), format!("b{round}"));
            one.record_image(&image(&id)).await.expect("recorded");
            one.queue_build(&build, b"", &Demand::default()).await.expect("queued");
            let name = format!("c{round}");
            let row = crate::Container { image_id: id.clone(), ..container(&name, &name) };
            let (forgotten, held, tagged, inserted) = tokio::join!(
                one.forget_image(&id, Containers::Keep),
                async { if round % 3 == 0 { other.hold_image(&build, &id).await } else { Ok(false) } },
                async { if round % 3 == 1 { other.tag_image(&id, &name).await } else { Ok(false) } },
                async {
                    match round % 3 {
                        2 => other.insert_container(&row).await.map(|()| true).or_else(|error| match error {
                            Error::NoImage(_) => Ok(false),
                            error => Err(error),
                        }),
                        _ => Ok(false),
                    }
                },
            );
            let stands = held.expect("asked") | tagged.expect("asked") | inserted.expect("asked");
            assert_ne!(forgotten.expect("asked"), stands, "round {round}");
            if stands { kept += 1 } else { gone += 1 }
        }
        assert!(gone > 0 && kept > 0, "both orders were seen: {gone} gone, {kept} kept");
    }
}
