//! Builds whose gateway's session has ended: each ends too, waits for its client to come back, or goes on by itself.

use crate::{Build, Database, Error};

/// A build that nobody waits for, with a new gateway.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Adopted {
    pub id: String,
    /// Encoded options.
    pub options: Vec<u8>,
}

impl Database {
    /// Cancels the builds whose gateway's session has ended: those that end with their client's connection, and those
    /// whose client has not come back for `patience_ms`. Each is told to one caller only.
    pub async fn cancel_orphans(&self, patience_ms: i64) -> Result<Vec<Build>, Error> {
        let now = self.now_ms();
        // Their gateway was taken for dead, and was not: the next time that it is gone counts anew.
        self.write(
            "UPDATE builds SET orphaned_ms = 0
             WHERE state IN ('waiting', 'running') AND orphaned_ms > 0 AND gateway IN (SELECT session FROM gateways)",
        )
        .run()
        .await?;
        self.write(
            "UPDATE builds SET orphaned_ms = $1
             WHERE state IN ('waiting', 'running') AND attendance = 'returning' AND orphaned_ms = 0
             AND gateway NOT IN (SELECT session FROM gateways)",
        )
        .bind(now)
        .run()
        .await?;
        self.write(
            "UPDATE builds SET state = 'cancelled', ended_ms = $1
             WHERE state IN ('waiting', 'running') AND gateway NOT IN (SELECT session FROM gateways)
             AND (attendance = 'connected'
                  OR (attendance = 'returning' AND orphaned_ms > 0 AND orphaned_ms <= $1 - $2))
             RETURNING id, options, state, attempt, worker_id, lease_until_ms, image_id, error, error_code, created_ms,
                       started_ms, ended_ms",
        )
        .bind(now)
        .bind(patience_ms)
        .all()
        .await
    }

    /// Gives the builds that nobody waits for, and whose gateway's session has ended, to this process's session. Each is
    /// told to one caller only.
    pub async fn adopt_absent(&self) -> Result<Vec<Adopted>, Error> {
        self.write(
            "UPDATE builds SET gateway = $1
             WHERE state IN ('waiting', 'running') AND attendance = 'absent'
             AND gateway NOT IN (SELECT session FROM gateways)
             RETURNING id, options",
        )
        .bind(self.session())
        .all()
        .await
    }

    /// The client of a build has come back to this process's session; false when the build is over, or ends with its
    /// client's connection.
    pub async fn take_back(&self, id: &str) -> Result<bool, Error> {
        let taken = self
            .write(
                "UPDATE builds SET gateway = $2, orphaned_ms = 0
                 WHERE id = $1 AND state IN ('waiting', 'running') AND attendance = 'returning'",
            )
            .bind(id)
            .bind(self.session())
            .run()
            .await?;
        Ok(taken > 0)
    }

    /// While no gateway ran nobody could renew a lease: those of builds that go on without their gateway last for
    /// `ttl_ms` from now. Nothing to do while another gateway lives.
    pub async fn prolong_leases(&self, ttl_ms: i64) -> Result<(), Error> {
        let now = self.now_ms();
        self.write(
            "UPDATE builds SET lease_until_ms = $1 + $2
             WHERE state = 'running' AND attendance <> 'connected' AND lease_until_ms < $1 + $2
             AND NOT EXISTS (SELECT 1 FROM gateways WHERE session <> $3 AND until_ms >= $1)",
        )
        .bind(now)
        .bind(ttl_ms)
        .bind(self.session())
        .run()
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_both;
    use crate::{Attendance, Demand};

    async fn queue(db: &Database, id: &str, attendance: Attendance) {
        db.queue_build(id, b"o", &Demand { attendance, ..Demand::default() }).await.expect("queued");
    }

    on_both! {
        async fn a_build_without_its_gateway_ends_waits_or_goes_on(db: Database) {
            let cancelled =
                async |ms| db.cancel_orphans(ms).await.expect("asked").into_iter().map(|b| b.id).collect::<Vec<_>>();
            db.begin_session("g", "first", 60_000).await.expect("begun");
            queue(&db, "connected", Attendance::Connected).await;
            queue(&db, "returning", Attendance::Returning).await;
            queue(&db, "gone", Attendance::Returning).await;
            queue(&db, "absent", Attendance::Absent).await;
            assert_eq!(cancelled(0).await, [] as [&str; 0], "their gateway lives");
            assert_eq!(db.adopt_absent().await.expect("asked"), []);
            db.write("UPDATE gateways SET session = 'other'").run().await.expect("another process starts");
            assert_eq!(cancelled(60_000).await, ["connected"]);
            assert_eq!(db.session_of_build("returning").await.expect("read").as_deref(), Some("first"));
            // This process is the one that takes them.
            db.write("UPDATE gateways SET session = 'first'").run().await.expect("it lives again");
            assert!(db.take_back("returning").await.expect("asked"));
            assert!(!db.take_back("connected").await.expect("asked"), "it is over");
            db.write("UPDATE gateways SET session = 'other'").run().await.expect("gone again");
            assert_eq!(db.adopt_absent().await.expect("asked").len(), 1);
            assert_eq!(cancelled(60_000).await, [] as [&str; 0], "their clients may come back");
            assert_eq!(cancelled(0).await.len(), 2, "they have not");
            assert_eq!(cancelled(0).await, [] as [&str; 0], "each is told once");
            assert_eq!(db.build("absent").await.expect("read").expect("there").state, "waiting");
        }

        async fn a_gateway_that_was_alive_all_the_time_gives_its_clients_their_patience_again(db: Database) {
            db.begin_session("g", "first", 60_000).await.expect("begun");
            queue(&db, "b", Attendance::Returning).await;
            let becomes = async |session: &str| {
                db.write("UPDATE gateways SET session = $1").bind(session).run().await.expect("another session");
                db.cancel_orphans(60_000).await.expect("asked").len()
            };
            assert_eq!(becomes("other").await, 0, "its client may come back");
            db.write("UPDATE builds SET orphaned_ms = 1").run().await.expect("long ago");
            assert_eq!(becomes("first").await, 0, "its gateway lives");
            assert_eq!(becomes("other").await, 0, "its client may come back from now on");
            db.write("UPDATE builds SET orphaned_ms = 1").run().await.expect("long ago");
            assert_eq!(becomes("other").await, 1);
        }

        async fn leases_outlive_a_time_without_gateways(db: Database) {
            db.begin_session("g", "s", 60_000).await.expect("begun");
            queue(&db, "kept", Attendance::Absent).await;
            queue(&db, "lost", Attendance::Connected).await;
            for id in ["kept", "lost"] {
                let leased = db.lease_build(id, "w", -1).await.expect("leased").expect("a build");
                assert_eq!(leased.gateway, "s");
            }
            db.prolong_leases(60_000).await.expect("prolonged");
            let waiting: Vec<_> = db.waiting_builds().await.expect("read").into_iter().map(|b| b.id).collect();
            assert_eq!(waiting, ["lost"]);
            assert!(db.lease_build("lost", "v", -1).await.expect("leased").is_some());
            db.write("INSERT INTO gateways (id, session, until_ms) VALUES ('h', 't', 9000000000000)").run().await.expect("another");
            db.write("UPDATE builds SET lease_until_ms = 1").run().await.expect("silent");
            db.prolong_leases(60_000).await.expect("nothing to do");
            assert_eq!(db.waiting_builds().await.expect("read").len(), 2);
        }
    }
}
