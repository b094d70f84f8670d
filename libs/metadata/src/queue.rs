//! The builds that wait for a worker: in which order, and what each asks of the worker that takes it.

use std::collections::BTreeMap;

use crate::{Database, Error};

/// After so many workers were lost with it, a build fails.
pub const MAX_ATTEMPTS: i64 = 3;

/// What a build asks of its worker, and its place in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Whoever has the fewest builds running comes first.
    pub owner: String,
    /// Higher first.
    pub priority: i64,
    /// All of them must be the worker's.
    pub labels: BTreeMap<String, String>,
    /// Empty: any.
    pub platform: String,
    pub attendance: Attendance,
}

/// What the end of its gateway means for a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attendance {
    /// It ends with its client's connection.
    #[default]
    Connected,
    /// Its client may come back through another gateway.
    Returning,
    /// Nobody waits for it.
    Absent,
}

impl Attendance {
    fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Returning => "returning",
            Self::Absent => "absent",
        }
    }
}

/// A build that waits for a worker, or whose worker fell silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub id: String,
    pub demand: Demand,
}

/// A build that a worker was given.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Leased {
    pub id: String,
    pub options: Vec<u8>,
    pub attempt: i64,
    /// The session whose client waits for it.
    pub gateway: String,
}

/// Who had a build.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Attempt {
    pub attempt: i64,
    pub worker_id: String,
    pub started_ms: i64,
}

impl Database {
    /// Its gateway is this process's session.
    ///
    /// # Errors
    /// `Taken` for an id that a build has.
    pub async fn queue_build(&self, id: &str, options: &[u8], demand: &Demand) -> Result<(), Error> {
        let Demand { owner, priority, labels, platform, attendance } = demand;
        let queued = self
            .write(
            "INSERT INTO builds (id, options, state, attempt, worker_id, lease_until_ms, created_ms, image_id, error,
                                 error_code, gateway, owner, priority, worker_labels, platform, attendance)
             VALUES ($1, $2, 'waiting', 0, '', 0, $3, '', '', 0, $4, $5, $6, $7, $8, $9)",
        )
        .bind(id)
        .bind(options)
        .bind(self.now_ms())
        .bind(self.session())
        .bind(owner.as_str())
        .bind(*priority)
        .bind(json(labels))
        .bind(platform.as_str())
        .bind(attendance.word())
        .run()
        .await;
        match queued {
            Err(error) if error.is_unique_violation() => Err(Error::Taken(id.to_owned())),
            queued => queued.map(drop),
        }
    }

    /// The builds that wait, or whose worker fell silent, in the order in which workers are to take them: the highest
    /// priority, then whose owner has the fewest builds running, then the oldest.
    pub async fn waiting_builds(&self) -> Result<Vec<Waiting>, Error> {
        let rows: Vec<Row> = self
            .read(
                "SELECT b.id, b.owner, b.priority, b.worker_labels, b.platform FROM builds b
                 LEFT JOIN (SELECT owner, COUNT(*) AS builds FROM builds
                            WHERE state = 'running' AND lease_until_ms >= $1 GROUP BY owner) running
                 ON running.owner = b.owner
                 WHERE b.attempt < $2
                 AND (b.state = 'waiting' OR (b.state = 'running' AND b.lease_until_ms < $1))
                 ORDER BY b.priority DESC, COALESCE(running.builds, 0), b.created_ms, b.id",
            )
            .bind(self.now_ms())
            .bind(MAX_ATTEMPTS)
            .all()
            .await?;
        Ok(rows.into_iter().map(Row::into_waiting).collect())
    }

    /// Gives a build that waits, or whose worker fell silent, to a worker. None when another was given it, or nobody
    /// wants it any more.
    pub async fn lease_build(&self, id: &str, worker_id: &str, ttl_ms: i64) -> Result<Option<Leased>, Error> {
        let now = self.now_ms();
        let mut tx = self.begin().await?;
        let leased: Option<Leased> = tx
            .query(
                "UPDATE builds SET state = 'running', attempt = attempt + 1, worker_id = $2, lease_until_ms = $3 + $4,
                        started_ms = $3
                 WHERE id = $1 AND attempt < $5
                 AND (state = 'waiting' OR (state = 'running' AND lease_until_ms < $3))
                 RETURNING id, options, attempt, gateway",
            )
            .bind(id)
            .bind(worker_id)
            .bind(now)
            .bind(ttl_ms)
            .bind(MAX_ATTEMPTS)
            .optional()
            .await?;
        if let Some(leased) = &leased {
            tx.query("INSERT INTO build_attempts (build_id, attempt, worker_id, started_ms) VALUES ($1, $2, $3, $4)")
                .bind(id)
                .bind(leased.attempt)
                .bind(worker_id)
                .bind(now)
                .run()
                .await?;
        }
        tx.commit().await?;
        Ok(leased)
    }

    /// False when the lease is lost or the build is no longer wanted.
    pub async fn renew_build(&self, id: &str, attempt: i64, ttl_ms: i64) -> Result<bool, Error> {
        let done = self
            .write("UPDATE builds SET lease_until_ms = $3 WHERE id = $1 AND attempt = $2 AND state = 'running'")
            .bind(id)
            .bind(attempt)
            .bind(self.now_ms() + ttl_ms)
            .run()
            .await?;
        Ok(done > 0)
    }

    /// Fails a build whose last worker was lost `silent_ms` ago, in favour of no further one. Told to one caller only.
    pub async fn give_up_build(&self, id: &str, silent_ms: i64, error: &str) -> Result<bool, Error> {
        let now = self.now_ms();
        let done = self
            .write(
                "UPDATE builds SET state = 'failed', error = $4, ended_ms = $2
                 WHERE id = $1 AND state = 'running' AND attempt >= $5 AND lease_until_ms < $2 - $3",
            )
            .bind(id)
            .bind(now)
            .bind(silent_ms)
            .bind(error)
            .bind(MAX_ATTEMPTS)
            .run()
            .await?;
        Ok(done > 0)
    }

    /// Which workers had a build, in their order.
    pub async fn build_workers(&self, id: &str) -> Result<Vec<Attempt>, Error> {
        self.read("SELECT attempt, worker_id, started_ms FROM build_attempts WHERE build_id = $1 ORDER BY attempt")
            .bind(id)
            .all()
            .await
    }

    /// What a build asks of its worker, as long as none has it.
    pub async fn waits_for(&self, id: &str) -> Result<Option<Demand>, Error> {
        let row: Option<Row> = self
            .read(
                "SELECT id, owner, priority, worker_labels, platform FROM builds
                 WHERE id = $1 AND attempt < $3 AND (state = 'waiting' OR (state = 'running' AND lease_until_ms < $2))",
            )
            .bind(id)
            .bind(self.now_ms())
            .bind(MAX_ATTEMPTS)
            .optional()
            .await?;
        Ok(row.map(|row| row.into_waiting().demand))
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    owner: String,
    priority: i64,
    worker_labels: String,
    platform: String,
}

impl Row {
    fn into_waiting(self) -> Waiting {
        let Self { id, owner, priority, worker_labels, platform } = self;
        let labels = serde_json::from_str(&worker_labels).unwrap_or_default();
        Waiting { id, demand: Demand { owner, priority, labels, platform, ..Demand::default() } }
    }
}

fn json(labels: &BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_both;

    fn of(owner: &str, priority: i64) -> Demand {
        Demand { owner: owner.to_owned(), priority, ..Demand::default() }
    }

    on_both! {
        async fn a_build_whose_worker_fell_silent_is_given_to_another(db: Database) {
            db.queue_build("b", b"", &Demand::default()).await.expect("queued");
            let first = db.lease_build("b", "w1", -1).await.expect("leased").expect("a build");
            let second = db.lease_build("b", "w2", 60_000).await.expect("leased").expect("the same build");
            assert_eq!((first.attempt, second.attempt, second.id.as_str()), (1, 2, "b"));
            assert!(db.lease_build("b", "w3", 60_000).await.expect("asked").is_none());
            assert!(db.waiting_builds().await.expect("read").is_empty());
            assert!(!db.finish_build("b", 1, "i", "", 0).await.expect("asked"), "the first attempt has lost it");
            assert!(db.finish_build("b", 2, "i", "", 0).await.expect("asked"));
            let build = db.build("b").await.expect("read").expect("it is there");
            assert!(0 < build.created_ms && build.created_ms <= build.started_ms && build.started_ms <= build.ended_ms);
        }

        async fn an_id_is_one_builds(db: Database) {
            db.queue_build("b", b"first", &Demand::default()).await.expect("queued");
            let again = db.queue_build("b", b"second", &Demand::default()).await;
            assert!(matches!(again, Err(Error::Taken(id)) if id == "b"));
            assert_eq!(db.build("b").await.expect("read").expect("it is there").options, b"first");
        }

        async fn after_three_lost_workers_nobody_gets_it(db: Database) {
            db.queue_build("b", b"", &Demand::default()).await.expect("queued");
            for worker in ["w1", "w2"] {
                assert!(db.lease_build("b", worker, -1).await.expect("leased").is_some());
                assert!(!db.give_up_build("b", 0, "lost").await.expect("asked"), "another worker may have it");
            }
            assert!(db.lease_build("b", "w3", -1).await.expect("leased").is_some());
            assert!(db.lease_build("b", "w4", -1).await.expect("asked").is_none());
            assert!(db.waiting_builds().await.expect("read").is_empty());
            assert!(!db.give_up_build("b", 60_000, "lost").await.expect("asked"), "it may come back");
            assert!(db.give_up_build("b", 0, "lost").await.expect("asked"));
            assert!(!db.give_up_build("b", 0, "lost").await.expect("asked"), "told once");
            let build = db.build("b").await.expect("read").expect("it is there");
            assert_eq!((build.state.as_str(), build.error.as_str()), ("failed", "lost"));
            let workers = db.build_workers("b").await.expect("read");
            let workers: Vec<_> = workers.into_iter().map(|had| (had.attempt, had.worker_id)).collect();
            assert_eq!(workers, [(1, "w1".to_owned()), (2, "w2".to_owned()), (3, "w3".to_owned())]);
        }

        async fn builds_wait_in_a_fair_order(db: Database) {
            let order = async || {
                let waiting = db.waiting_builds().await.expect("read");
                waiting.into_iter().map(|build| build.id).collect::<Vec<_>>()
            };
            for (id, demand) in [
                ("a1", of("anna", 0)), ("a2", of("anna", 0)), ("a3", of("anna", 0)), ("b1", of("bob", 0)),
                ("low", of("carl", -1)), ("high", of("anna", 5)),
            ] {
                db.queue_build(id, b"", &demand).await.expect("queued");
                // Their ages differ.
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            assert_eq!(order().await, ["high", "a1", "a2", "a3", "b1", "low"]);
            db.lease_build("high", "w", 60_000).await.expect("leased");
            assert_eq!(order().await, ["b1", "a1", "a2", "a3", "low"], "anna has one, bob has none");
            db.lease_build("b1", "w", 60_000).await.expect("leased");
            assert_eq!(order().await, ["a1", "a2", "a3", "low"], "both have one");
            db.finish_build("high", 1, "", "", 0).await.expect("ended");
            db.queue_build("b2", b"", &of("bob", 0)).await.expect("queued");
            assert_eq!(order().await, ["a1", "a2", "a3", "b2", "low"], "anna's are over");
        }

        async fn what_a_build_asks_of_its_worker_is_kept(db: Database) {
            let demand = Demand {
                labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
                platform: "linux/arm64".to_owned(),
                ..of("anna", 3)
            };
            db.queue_build("b", b"x", &demand).await.expect("queued");
            assert_eq!(db.waits_for("b").await.expect("read"), Some(demand));
            assert_eq!(db.waits_for("c").await.expect("read"), None);
        }
    }
}
