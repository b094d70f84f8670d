use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{Database, Error, now_ms};

/// What became of a session that was to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Renewed,
    /// It had fallen silent for too long and was taken for dead; it lives again.
    Revived,
    /// Another process runs under this gateway's id.
    Taken,
}

/// How far the database's clock is ahead of this machine's.
#[derive(Clone, Default)]
pub(crate) struct Clock {
    ahead_ms: Arc<AtomicI64>,
    own: Arc<OnceLock<String>>,
}

impl Database {
    /// Whether other gateways may have this database open.
    pub fn is_shared(&self) -> bool {
        matches!(self.pools, crate::open::Pools::Postgres(_))
    }

    /// Milliseconds since 1970 by the clock that all gateways of this database go by: leases are compared by it.
    pub fn now_ms(&self) -> i64 {
        now_ms() + self.clock.ahead_ms.load(Ordering::Relaxed)
    }

    /// The session that this process queues its builds under; empty before [`Self::begin_session`].
    pub fn session(&self) -> &str {
        self.clock.own.get().map_or("", String::as_str)
    }

    /// Begins this process's session under the gateway's id, in place of the one that an earlier process had. To be called
    /// once, before anything is queued.
    pub async fn begin_session(&self, id: &str, session: &str, ttl_ms: i64) -> Result<(), Error> {
        self.read_clock().await?;
        let _ = self.clock.own.set(session.to_owned());
        self.write(
            "INSERT INTO gateways (id, session, until_ms) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET session = excluded.session, until_ms = excluded.until_ms",
        )
        .bind(id)
        .bind(session)
        .bind(self.now_ms() + ttl_ms)
        .run()
        .await?;
        Ok(())
    }

    /// The session that a build was queued under; none for a build that is not known.
    pub async fn session_of_build(&self, id: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self.read("SELECT gateway FROM builds WHERE id = $1").bind(id).optional().await?;
        Ok(row.map(|row| row.0))
    }

    pub async fn renew_session(&self, id: &str, ttl_ms: i64) -> Result<Session, Error> {
        self.read_clock().await?;
        let until_ms = self.now_ms() + ttl_ms;
        let renewed = self
            .write("UPDATE gateways SET until_ms = $3 WHERE id = $1 AND session = $2")
            .bind(id)
            .bind(self.session())
            .bind(until_ms)
            .run()
            .await?;
        if renewed > 0 {
            return Ok(Session::Renewed);
        }
        let revived = self
            .write("INSERT INTO gateways (id, session, until_ms) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING")
            .bind(id)
            .bind(self.session())
            .bind(until_ms)
            .run()
            .await?;
        Ok(if revived > 0 { Session::Revived } else { Session::Taken })
    }

    /// This process serves no more: what it leaves is for the others.
    pub async fn end_session(&self) -> Result<(), Error> {
        self.write("DELETE FROM gateways WHERE session = $1").bind(self.session()).run().await?;
        Ok(())
    }

    /// Ends the sessions that were not renewed in time. Each is told to one caller only.
    pub async fn end_silent_sessions(&self) -> Result<Vec<String>, Error> {
        let gone: Vec<(String,)> =
            self.write("DELETE FROM gateways WHERE until_ms < $1 RETURNING id").bind(self.now_ms()).all().await?;
        Ok(gone.into_iter().map(|row| row.0).collect())
    }

    /// Machines' clocks differ, the server's is one.
    async fn read_clock(&self) -> Result<(), Error> {
        if self.is_shared() {
            let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
            if let Some((there,)) = self.read(sql).optional::<(i64,)>().await? {
                self.clock.ahead_ms.store(there - now_ms(), Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Demand;
    use crate::testing::on_both;

    on_both! {
        async fn builds_of_a_session_that_ended_are_orphans(db: Database) {
            let orphans = async || db.cancel_orphans(0).await.expect("asked").into_iter().map(|b| b.id).collect::<Vec<_>>();
            db.begin_session("g", "first", 60_000).await.expect("begun");
            db.queue_build("a", b"", &Demand::default()).await.expect("queued");
            assert_eq!(db.session_of_build("a").await.expect("read").as_deref(), Some("first"));
            assert_eq!(db.session_of_build("b").await.expect("read"), None);
            assert_eq!(orphans().await, [] as [&str; 0], "its gateway lives");
            assert_eq!(db.end_silent_sessions().await.expect("asked"), [] as [&str; 0]);
            assert_eq!(db.renew_session("g", -1).await.expect("renewed"), Session::Renewed);
            assert_eq!(db.end_silent_sessions().await.expect("asked"), ["g"]);
            assert_eq!(db.end_silent_sessions().await.expect("asked"), [] as [&str; 0], "each is told once");
            assert_eq!(orphans().await, ["a"]);
            assert_eq!(orphans().await, [] as [&str; 0], "each is told once");
            assert_eq!(db.renew_session("g", 60_000).await.expect("renewed"), Session::Revived);
            db.write("UPDATE gateways SET session = 'second'").run().await.expect("another process starts");
            assert_eq!(db.renew_session("g", 60_000).await.expect("asked"), Session::Taken);
            db.queue_build("b", b"", &Demand::default()).await.expect("queued");
            assert_eq!(orphans().await, ["b"]);
        }
    }
}
