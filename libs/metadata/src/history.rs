//! What is remembered of builds that are over: their steps and where their logs lie.

use crate::{Database, Error};

/// What the end of a build leaves.
#[derive(Clone, Debug, Default)]
pub struct BuildRecord {
    /// Encoded vertices, in the order in which they were told.
    pub steps: Vec<Vec<u8>>,
    /// Digest of the log in the layer store; empty: there is none.
    pub log: String,
    pub log_bytes: i64,
    /// Alike for builds that are compared with each other; empty: with none.
    pub same: String,
}

/// How many builds are remembered, and how long.
#[derive(Clone, Copy, Debug)]
pub struct HistoryCaps {
    pub builds: i64,
    pub age_ms: i64,
    pub log_bytes: i64,
}

/// Where a build's log lies.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct BuildLog {
    pub id: String,
    /// Empty: there is none.
    pub log: String,
    pub log_bytes: i64,
}

impl Database {
    /// Writes what a build's end leaves; false when the build is not remembered any more. May be repeated: the last counts.
    pub async fn record_build(&self, id: &str, record: &BuildRecord) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = tx
            .query("UPDATE builds SET log = $2, log_bytes = $3, same = $4, recorded_ms = $5 WHERE id = $1")
            .bind(id)
            .bind(&record.log)
            .bind(record.log_bytes)
            .bind(&record.same)
            .bind(self.now_ms())
            .run()
            .await?;
        if changed == 0 {
            return Ok(false);
        }
        tx.query("DELETE FROM build_steps WHERE build_id = $1").bind(id).run().await?;
        for (number, vertex) in (0..).zip(&record.steps) {
            tx.query("INSERT INTO build_steps (build_id, number, vertex) VALUES ($1, $2, $3)")
                .bind(id)
                .bind(number)
                .bind(vertex)
                .run()
                .await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Encoded vertices of a recorded build, in the order in which they were told.
    pub async fn build_steps(&self, id: &str) -> Result<Vec<Vec<u8>>, Error> {
        let rows: Vec<(Vec<u8>,)> =
            self.read("SELECT vertex FROM build_steps WHERE build_id = $1 ORDER BY number").bind(id).all().await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// The ids of the builds that are remembered, the newest first.
    pub async fn all_build_ids(&self) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self.read("SELECT id FROM builds ORDER BY created_ms DESC, id").all().await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// Where the log of a recorded build lies; `None` until its end is recorded.
    pub async fn recorded_log(&self, id: &str) -> Result<Option<BuildLog>, Error> {
        self.read("SELECT id, log, log_bytes FROM builds WHERE id = $1 AND recorded_ms > 0").bind(id).optional().await
    }

    /// Builds that are over and whose end nobody has recorded.
    pub async fn unrecorded_builds(&self) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .read("SELECT id FROM builds WHERE recorded_ms = 0 AND state NOT IN ('waiting', 'running') ORDER BY created_ms")
            .all()
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// The last recorded build before this moment that is compared with others of `same`.
    pub async fn last_of_same(&self, same: &str, before_ms: i64) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .read(
                "SELECT id FROM builds WHERE same = $1 AND created_ms < $2 AND state IN ('done', 'failed')
                 ORDER BY created_ms DESC, id LIMIT 1",
            )
            .bind(same)
            .bind(before_ms)
            .optional()
            .await?;
        Ok(row.map(|row| row.0))
    }

    /// Ids that begin so, at most two: more than one is ambiguous.
    pub async fn build_ids(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .read("SELECT id FROM builds WHERE SUBSTR(id, 1, LENGTH($1)) = $1 ORDER BY id LIMIT 2")
            .bind(prefix)
            .all()
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// Logs that lie in the layer store.
    pub async fn build_logs(&self) -> Result<Vec<BuildLog>, Error> {
        self.read("SELECT id, log, log_bytes FROM builds WHERE log <> '' ORDER BY created_ms DESC, id").all().await
    }

    /// Builds that are over and past one of the caps, the oldest last.
    pub async fn builds_past(&self, caps: &HistoryCaps) -> Result<Vec<String>, Error> {
        let rows: Vec<(String, i64, i64)> = self
            .read(
                "SELECT id, created_ms, log_bytes FROM builds WHERE state NOT IN ('waiting', 'running')
                 ORDER BY created_ms DESC, id",
            )
            .all()
            .await?;
        let oldest = self.now_ms() - caps.age_ms;
        let mut bytes = 0;
        let mut past = Vec::new();
        for (number, (id, created_ms, log_bytes)) in (1..).zip(rows) {
            bytes += log_bytes;
            if number > caps.builds || created_ms < oldest || bytes > caps.log_bytes {
                past.push(id);
            }
        }
        Ok(past)
    }

    /// Forgets a build that is over, with its steps; says where its log lies. `None` when it is not over, or not there.
    pub async fn forget_build(&self, id: &str) -> Result<Option<BuildLog>, Error> {
        self.write(
            "DELETE FROM builds WHERE id = $1 AND state NOT IN ('waiting', 'running') RETURNING id, log, log_bytes",
        )
        .bind(id)
        .optional()
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Demand;
    use crate::testing::on_both;

    fn record(same: &str, log_bytes: i64) -> BuildRecord {
        BuildRecord {
            steps: vec![b"one".to_vec(), b"two".to_vec()],
            log: "sha256:l".to_owned(),
            log_bytes,
            same: same.to_owned(),
        }
    }

    on_both! {
        async fn a_build_that_is_over_is_remembered(db: Database) {
            db.queue_build("abc", b"", &Demand::default()).await.expect("queued");
            assert_eq!(db.unrecorded_builds().await.expect("read"), [] as [&str; 0], "it is not over");
            assert_eq!(db.forget_build("abc").await.expect("asked"), None, "it is not over");
            db.cancel_build("abc").await.expect("cancelled");
            assert_eq!(db.unrecorded_builds().await.expect("read"), ["abc"]);
            assert_eq!(db.recorded_log("abc").await.expect("read"), None);
            for _ in 0..2 {
                assert!(db.record_build("abc", &record("x", 7)).await.expect("recorded"), "may be repeated");
            }
            assert!(!db.record_build("none", &record("x", 7)).await.expect("asked"));
            assert_eq!(db.unrecorded_builds().await.expect("read"), [] as [&str; 0]);
            assert_eq!(db.build_steps("abc").await.expect("read"), [b"one".to_vec(), b"two".to_vec()]);
            let log = BuildLog { id: "abc".to_owned(), log: "sha256:l".to_owned(), log_bytes: 7 };
            assert_eq!(db.recorded_log("abc").await.expect("read"), Some(log.clone()));
            assert_eq!(db.build_logs().await.expect("read"), std::slice::from_ref(&log));
            assert_eq!(db.forget_build("abc").await.expect("asked"), Some(log));
            assert_eq!(db.build_steps("abc").await.expect("read"), [] as [Vec<u8>; 0], "steps go with their build");
        }

        async fn a_build_is_found_by_the_beginning_of_its_id(db: Database) {
            for id in ["ab1", "ab2", "ac"] {
                db.queue_build(id, b"", &Demand::default()).await.expect("queued");
            }
            for (prefix, found) in [("ab1", &["ab1"][..]), ("ab", &["ab1", "ab2"]), ("ac", &["ac"]), ("x", &[]), ("%", &[])] {
                assert_eq!(db.build_ids(prefix).await.expect("read"), found, "{prefix}");
            }
        }

        async fn only_ended_builds_of_the_same_are_compared(db: Database) {
            for (id, state) in [("a", "done"), ("b", "cancelled"), ("c", "running")] {
                db.queue_build(id, b"", &Demand::default()).await.expect("queued");
                db.write("UPDATE builds SET state = $2 WHERE id = $1").bind(id).bind(state).run().await.expect("set");
                db.record_build(id, &record("x", 0)).await.expect("recorded");
            }
            let last = async |same| db.last_of_same(same, i64::MAX).await.expect("read");
            assert_eq!(last("x").await.as_deref(), Some("a"));
            assert_eq!(last("y").await, None);
        }

        async fn what_is_past_a_cap_is_the_oldest(db: Database) {
            for (number, id) in (1..).zip(["a", "b", "c", "d"]) {
                db.queue_build(id, b"", &Demand::default()).await.expect("queued");
                let sql = "UPDATE builds SET created_ms = $2, log_bytes = 10 WHERE id = $1";
                db.write(sql).bind(id).bind(db.now_ms() - number * 1000).run().await.expect("set");
            }
            for id in ["b", "c", "d"] {
                db.cancel_build(id).await.expect("cancelled");
            }
            let wide = HistoryCaps { builds: 100, age_ms: 3_600_000, log_bytes: 1000 };
            for (caps, past) in [
                (wide, &[][..]),
                (HistoryCaps { builds: 2, ..wide }, &["d"]),
                (HistoryCaps { age_ms: 2500, ..wide }, &["c", "d"]),
                (HistoryCaps { log_bytes: 15, ..wide }, &["c", "d"]),
            ] {
                assert_eq!(db.builds_past(&caps).await.expect("read"), past, "{caps:?}");
            }
        }
    }
}
