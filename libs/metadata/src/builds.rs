use crate::{Database, Error};

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Build {
    pub id: String,
    /// Encoded options.
    pub options: Vec<u8>,
    /// "waiting", "running", "done", "failed" or "cancelled".
    pub state: String,
    pub attempt: i64,
    pub worker_id: String,
    pub lease_until_ms: i64,
    pub image_id: String,
    pub error: String,
    pub error_code: i64,
    pub created_ms: i64,
    /// When the last attempt began; 0: never.
    pub started_ms: i64,
    /// 0: not yet.
    pub ended_ms: i64,
}

/// Which builds are listed: the newest first, after (`created_ms`, `id`) of the last one seen.
#[derive(Clone, Debug)]
pub struct BuildsPage {
    pub after: Option<(i64, String)>,
    pub limit: u32,
}

impl Database {
    /// Ends a running build, that failed where there is an `error`; false when this attempt does not hold it any more.
    pub async fn finish_build(
        &self,
        id: &str,
        attempt: i64,
        image_id: &str,
        error: &str,
        error_code: i64,
    ) -> Result<bool, Error> {
        let state = if error.is_empty() { "done" } else { "failed" };
        let done = self
            .write(
                "UPDATE builds SET state = $3, image_id = $4, error = $5, error_code = $6, ended_ms = $7
             WHERE id = $1 AND attempt = $2 AND state = 'running'",
            )
            .bind(id)
            .bind(attempt)
            .bind(state)
            .bind(image_id)
            .bind(error)
            .bind(error_code)
            .bind(self.now_ms())
            .run()
            .await?;
        Ok(done > 0)
    }

    /// Nobody wants the build any more; says which worker runs it.
    pub async fn cancel_build(&self, id: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .write(
                "UPDATE builds SET state = 'cancelled', ended_ms = $2
                 WHERE id = $1 AND state IN ('waiting', 'running') RETURNING worker_id",
            )
            .bind(id)
            .bind(self.now_ms())
            .optional()
            .await?;
        Ok(row.map(|row| row.0).filter(|worker| !worker.is_empty()))
    }

    pub async fn build(&self, id: &str) -> Result<Option<Build>, Error> {
        self.read(
            "SELECT id, options, state, attempt, worker_id, lease_until_ms, image_id, error, error_code, created_ms,
                    started_ms, ended_ms
             FROM builds WHERE id = $1",
        )
        .bind(id)
        .optional()
        .await
    }

    /// A page of the builds that are remembered, newest first.
    pub async fn builds(&self, page: &BuildsPage) -> Result<Vec<Build>, Error> {
        let (created_ms, id) = page.after.clone().unwrap_or((i64::MAX, String::new()));
        self.read(
            "SELECT id, options, state, attempt, worker_id, lease_until_ms, image_id, error, error_code, created_ms,
                    started_ms, ended_ms
             FROM builds WHERE created_ms < $1 OR (created_ms = $1 AND id > $2)
             ORDER BY created_ms DESC, id LIMIT $3",
        )
        .bind(created_ms)
        .bind(id)
        .bind(i64::from(page.limit))
        .all()
        .await
    }

    /// State and worker (empty: none) with how many builds are remembered of them.
    pub async fn count_builds(&self) -> Result<Vec<(String, String, i64)>, Error> {
        self.read("SELECT state, worker_id, COUNT(*) FROM builds GROUP BY state, worker_id ORDER BY state, worker_id")
            .all()
            .await
    }
}
