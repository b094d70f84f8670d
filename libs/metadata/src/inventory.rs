use std::collections::HashSet;

use crate::{Change, Database, Error, now_ms};

/// Everything that a node held when it took the number (epoch, seq).
pub struct Inventory {
    pub node_id: String,
    pub epoch: u64,
    pub seq: u64,
    /// Container and its encoded status.
    pub containers: Vec<(String, Vec<u8>)>,
}

/// What an inventory has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// Positions in the inventory's list whose row was older.
    pub updated: Vec<usize>,
    /// Containers that the node does not hold any more.
    pub forgotten: Vec<String>,
    /// Every container of the node that the database holds now.
    pub known: Vec<String>,
}

/// An intent that no node has acted on is older than this when it counts as lost.
const LOST_AFTER_MS: i64 = 60_000;

impl Database {
    /// Brings the rows of a node to its inventory. A row with a newer number stays; so does an intent (number 0) that is
    /// young, since the node may not have seen it when it counted.
    pub async fn apply_inventory(&self, inventory: &Inventory) -> Result<Healed, Error> {
        let changes: Vec<Change> = inventory
            .containers
            .iter()
            .map(|(id, status)| Change {
                node_id: inventory.node_id.clone(),
                container_id: id.clone(),
                epoch: inventory.epoch,
                seq: inventory.seq,
                status: status.clone(),
                removed: false,
            })
            .collect();
        let applied = self.apply(&changes, None).await?;
        let updated = applied.iter().enumerate().filter(|(_, applied)| **applied).map(|(at, _)| at).collect();
        let held: HashSet<&str> = inventory.containers.iter().map(|(id, _)| id.as_str()).collect();
        let mut tx = self.begin().await?;
        let rows: Vec<(String, i64, i64, i64)> = tx
            .query("SELECT id, epoch, seq, created_ms FROM containers WHERE node_id = $1 ORDER BY id")
            .bind(&inventory.node_id)
            .all()
            .await?;
        let (mut forgotten, mut known) = (Vec::new(), Vec::new());
        for (id, epoch, seq, created_ms) in rows {
            let number = (epoch.cast_unsigned(), seq.cast_unsigned());
            let lost = match epoch {
                0 => now_ms() - created_ms > LOST_AFTER_MS,
                _ => number < (inventory.epoch, inventory.seq),
            };
            if held.contains(id.as_str()) || !lost {
                known.push(id);
                continue;
            }
            for statement in ["DELETE FROM containers WHERE id = $1", "DELETE FROM execs WHERE container_id = $1"] {
                tx.query(statement).bind(&id).run().await?;
            }
            forgotten.push(id);
        }
        tx.commit().await?;
        Ok(Healed { updated, forgotten, known })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom as _;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::Container;
    use crate::testing::on_both;

    const NODE: &str = "n";

    fn container(id: &str) -> Container {
        crate::testing::container(id, &format!("name-{id}"))
    }

    /// What a node did, in order, over two boots, and what it holds at the end.
    fn history(random: &mut StdRng, ids: &[String]) -> (Vec<Change>, Inventory) {
        let (mut epoch, mut seq) = (1, 0);
        let mut held: Vec<(String, Vec<u8>)> = ids.iter().map(|id| (id.clone(), Vec::new())).collect();
        let mut changes = Vec::new();
        for step in 0..random.random_range(1..40) {
            if held.is_empty() {
                break;
            }
            if random.random_bool(0.05) {
                (epoch, seq) = (epoch + 1, 0);
            }
            seq += 1;
            let at = random.random_range(0..held.len());
            let removed = random.random_bool(0.1);
            held[at].1 = format!("state {step}").into_bytes();
            let (container_id, status) = held[at].clone();
            changes.push(Change { node_id: "n".to_owned(), container_id, epoch, seq, status, removed });
            if removed {
                held.remove(at);
            }
        }
        (changes, Inventory { node_id: NODE.to_owned(), epoch, seq: seq + 1, containers: held })
    }

    async fn rows(db: &Database) -> Vec<(String, Vec<u8>)> {
        let mut rows: Vec<_> = db.containers().await.expect("read").into_iter().map(|c| (c.id, c.status)).collect();
        rows.sort();
        rows
    }

    async fn deliver(db: &Database, changes: &[Change], random: &mut StdRng) {
        let mut rest = changes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(random.random_range(1..=rest.len()));
            db.apply(now, Some(("EVENTS", 1))).await.expect("applied");
            rest = later;
        }
    }

    async fn empty(db: &Database) {
        db.write("DELETE FROM containers").run().await.expect("emptied");
        db.record_image(&crate::testing::image("i")).await.expect("recorded");
    }

    on_both! {
        /// Dropped, doubled, reordered and replayed, before and after the inventory: the rows are what the node holds.
        async fn any_delivery_and_an_inventory_give_the_same_rows(db: Database) {
            for seed in 0..60 {
                let mut random = StdRng::seed_from_u64(seed);
                let ids: Vec<String> = (0..random.random_range(1..6)).map(|n| format!("c{n}")).collect();
                let (changes, inventory) = history(&mut random, &ids);
                let mut wanted = inventory.containers.clone();
                wanted.sort();

                empty(&db).await;
                for id in &ids {
                    db.insert_container(&container(id)).await.expect("inserted");
                }
                let mut heard: Vec<Change> = changes.iter().filter(|_| random.random_bool(0.7)).cloned().collect();
                let doubled: Vec<Change> = heard.iter().filter(|_| random.random_bool(0.4)).cloned().collect();
                heard.extend(doubled);
                heard.shuffle(&mut random);
                let (before, after) = heard.split_at(random.random_range(0..=heard.len()));
                deliver(&db, before, &mut random).await;
                // A row without a number counts as a young intent; what the node forgot it must have told once.
                for gone in changes.iter().filter(|change| change.removed) {
                    db.apply(std::slice::from_ref(gone), None).await.expect("applied");
                }
                db.apply_inventory(&inventory).await.expect("healed");
                assert_eq!(rows(&db).await, wanted, "seed {seed}, after the inventory");
                deliver(&db, after, &mut random).await;
                deliver(&db, &changes, &mut random).await;
                assert_eq!(rows(&db).await, wanted, "seed {seed}, after late and replayed events");
                let again = db.apply_inventory(&inventory).await.expect("healed");
                assert_eq!(
                    (again.updated, again.forgotten),
                    (Vec::new(), Vec::new()),
                    "seed {seed}: nothing is left to heal"
                );
            }
        }

        async fn without_the_inventory_the_order_of_whole_deliveries_does_not_matter(db: Database) {
            for seed in 100..140 {
                let mut random = StdRng::seed_from_u64(seed);
                let ids: Vec<String> = (0..4).map(|n| format!("c{n}")).collect();
                let (mut changes, inventory) = history(&mut random, &ids);
                let mut wanted = inventory.containers;
                wanted.sort();
                empty(&db).await;
                for id in &ids {
                    db.insert_container(&container(id)).await.expect("inserted");
                }
                changes.shuffle(&mut random);
                deliver(&db, &changes, &mut random).await;
                assert_eq!(rows(&db).await, wanted, "seed {seed}");
            }
        }

        async fn an_inventory_forgets_what_is_gone_and_spares_young_intents_and_other_nodes(db: Database) {
            empty(&db).await;
            let old = Container { created_ms: now_ms() - LOST_AFTER_MS - 1, ..container("old") };
            let elsewhere = Container { node_id: "m".to_owned(), epoch: 1, seq: 1, ..container("elsewhere") };
            let acted_on = Container { epoch: 1, seq: 3, ..container("acted-on") };
            let newer = Container { epoch: 2, seq: 9, ..container("newer") };
            for row in [container("young"), old, elsewhere, acted_on, newer] {
                db.insert_container(&row).await.expect("inserted");
            }
            let inventory = Inventory { node_id: NODE.to_owned(), epoch: 2, seq: 8, containers: Vec::new() };
            let healed = db.apply_inventory(&inventory).await.expect("healed");
            assert_eq!(healed.forgotten, ["acted-on", "old"]);
            assert_eq!(healed.known, ["newer", "young"]);
            assert_eq!(rows(&db).await.into_iter().map(|row| row.0).collect::<Vec<_>>(), ["elsewhere", "newer", "young"]);
        }
    }
}
