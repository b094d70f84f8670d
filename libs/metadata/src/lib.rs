//! The database of the gateway: images, tags, containers, build steps, builds. The only room that names sqlx.
//!
//! Entry point: [`Database::open`]. On SQLite one connection writes and several read (WAL); on PostgreSQL several gateways may
//! have it open. The statements are the same for both (`query`). Messages of the bus are kept encoded and are not looked
//! into here. A change of a container is applied only when its (epoch, sequence) is newer than the one that the row
//! holds, in one transaction with the position in the stream of events.

mod build_cache;
mod builds;
mod cache_mounts;
mod containers;
mod contexts;
mod error;
mod execs;
mod gateways;
mod history;
mod holds;
mod images;
mod inventory;
mod open;
mod orphans;
mod packed;
mod platforms;
mod query;
mod queue;
mod step_results;
mod steps;
#[cfg(test)]
mod testing;
mod workers;

use std::time::{SystemTime, UNIX_EPOCH};

pub use build_cache::CachedStep;
pub use builds::{Build, BuildsPage};
pub use cache_mounts::CacheMount;
pub use containers::{Change, Container};
pub use contexts::ContextTree;
pub use error::Error;
pub use execs::Exec;
pub use gateways::Session;
pub use history::{BuildLog, BuildRecord, HistoryCaps};
pub use holds::Containers;
pub use images::{Image, Layer};
pub use inventory::{Healed, Inventory};
pub use orphans::Adopted;
pub use packed::Packed;
pub use platforms::TagPlatform;
pub use queue::{Attempt, Attendance, Demand, Leased, MAX_ATTEMPTS, Waiting};
pub use step_results::StepResult;
pub use workers::WorkerOrders;

use open::Pools;

/// The open database; clones share it.
#[derive(Clone)]
pub struct Database {
    pools: Pools,
    clock: gateways::Clock,
}

impl Database {
    /// How far the stream `stream` is applied.
    pub async fn position(&self, stream: &str) -> Result<u64, Error> {
        let row: Option<(i64,)> =
            self.read("SELECT number FROM position WHERE stream = $1").bind(stream).optional().await?;
        Ok(row.map_or(0, |row| row.0.cast_unsigned()))
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{container, image, on_both, sqlite};

    on_both! {
        async fn only_a_newer_change_is_applied(db: Database) {
            db.record_image(&image("i")).await.expect("recorded");
            db.insert_container(&container("a", "x")).await.expect("inserted");
            let change = |epoch, seq, status: &[u8]| Change {
                node_id: "n".to_owned(),
                container_id: "a".to_owned(),
                epoch,
                seq,
                status: status.to_vec(),
                removed: false,
            };
            for (epoch, seq, wanted) in [(1, 5, true), (1, 5, false), (1, 4, false), (2, 1, true), (1, 9, false)] {
                let applied = db.apply(&[change(epoch, seq, b"now")], Some(("EVENTS", seq))).await.expect("applied");
                assert_eq!(applied, [wanted], "({epoch}, {seq})");
            }
            assert_eq!(db.position("EVENTS").await.expect("read"), 9);
            let gone = Change { removed: true, ..change(2, 2, b"") };
            let others = Change { node_id: "other".to_owned(), ..gone.clone() };
            assert_eq!(db.apply(&[others], None).await.expect("applied"), [false], "another node's container");
            assert_eq!(db.apply(&[gone], None).await.expect("applied"), [true]);
            assert!(db.find_containers("a").await.expect("read").is_empty());
        }

        async fn names_are_unique(db: Database) {
            db.record_image(&image("i")).await.expect("recorded");
            db.insert_container(&container("a", "x")).await.expect("inserted");
            assert!(matches!(db.insert_container(&container("b", "x")).await, Err(Error::Taken(name)) if name == "x"));
        }

        async fn builds_are_listed_page_by_page(db: Database) {
            for id in ["a", "b", "c", "d", "e"] {
                db.queue_build(id, b"", &Demand::default()).await.expect("queued");
            }
            db.cancel_build("c").await.expect("cancelled");
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let page = db.builds(&BuildsPage { after: after.clone(), limit: 2 }).await.expect("read");
                let Some(last) = page.last() else { break };
                assert!(page.len() <= 2);
                after = Some((last.created_ms, last.id.clone()));
                seen.extend(page.into_iter().map(|build| (std::cmp::Reverse(build.created_ms), build.id)));
            }
            assert!(seen.is_sorted(), "newest first: {seen:?}");
            assert_eq!(seen.len(), 5, "each once: {seen:?}");
            let counted = db.count_builds().await.expect("read");
            assert_eq!(counted, [("cancelled".to_owned(), String::new(), 1), ("waiting".to_owned(), String::new(), 4)]);
        }
    }

    #[tokio::test]
    async fn a_second_gateway_on_one_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let _db = sqlite(folder.path()).await;
        assert!(matches!(Database::open("sqlite:", folder.path(), |_| {}).await, Err(Error::Locked(_))));
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_refused_without_being_shown() {
        for url in ["mysql://u:secret@h/x", "", "sqlite:/else", "postgres"] {
            let refused = Database::open(url, std::path::Path::new("/"), |_| {}).await.err().expect("refused");
            assert_eq!(refused.kind(), model::ErrorKind::InvalidArgument, "{url}");
            assert!(!refused.to_string().contains("secret"));
        }
    }
}
