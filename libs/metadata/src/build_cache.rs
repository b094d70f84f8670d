//! Results of steps as a cache: what there is, by when it was used last.

use crate::images::{Layer, parse_layers};
use crate::{Database, Error};

/// A step's result without what only workers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedStep {
    pub key: String,
    pub description: String,
    pub layers: Vec<Layer>,
    pub created_ms: i64,
    pub last_used_ms: i64,
}

impl Database {
    /// All results of steps, the one used longest ago first.
    pub async fn cached_steps(&self) -> Result<Vec<CachedStep>, Error> {
        let rows: Vec<(String, String, String, i64, i64)> = self
            .read(
                "SELECT key, description, layers, created_ms, last_used_ms FROM step_results
                 ORDER BY last_used_ms, created_ms, key",
            )
            .all()
            .await?;
        rows.into_iter()
            .map(|(key, description, layers, created_ms, last_used_ms)| {
                let layers = parse_layers(&key, &layers)?;
                Ok(CachedStep { key, description, layers, created_ms, last_used_ms })
            })
            .collect()
    }

    /// When the oldest build that runs began; `None` where none runs.
    pub async fn builds_run_since(&self) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> = self
            .read("SELECT started_ms FROM builds WHERE state = 'running' ORDER BY started_ms LIMIT 1")
            .optional()
            .await?;
        Ok(row.map(|row| row.0))
    }

    /// Forgets a result unless it was used since; says whether it went.
    pub async fn forget_cached_step(&self, step: &CachedStep) -> Result<bool, Error> {
        let gone = self
            .write("DELETE FROM step_results WHERE key = $1 AND last_used_ms <= $2")
            .bind(&step.key)
            .bind(step.last_used_ms)
            .run()
            .await?;
        Ok(gone > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StepResult;
    use crate::testing::on_both;

    on_both! {
        async fn the_result_used_longest_ago_is_the_first_to_go(db: Database) {
            for (key, used_ms) in [("a", 20), ("b", 10), ("c", 30)] {
                let (record, description) = (Vec::new(), format!("RUN {key}"));
                let result = StepResult { key: key.to_owned(), record, layers: Vec::new(), description };
                db.record_step_result(&result).await.expect("recorded");
                let sql = "UPDATE step_results SET last_used_ms = $2 WHERE key = $1";
                db.write(sql).bind(key).bind(used_ms).run().await.expect("set");
            }
            let steps = db.cached_steps().await.expect("read");
            let keys: Vec<&str> = steps.iter().map(|step| step.key.as_str()).collect();
            assert_eq!(keys, ["b", "a", "c"]);
            assert_eq!(steps[0].description, "RUN b");
            db.step_results(&["a".to_owned()]).await.expect("used");
            assert!(!db.forget_cached_step(&steps[1]).await.expect("asked"), "it was used since");
            assert!(db.forget_cached_step(&steps[0]).await.expect("asked"));
            assert!(!db.forget_cached_step(&steps[0]).await.expect("asked"), "it is gone");
            assert_eq!(db.cached_steps().await.expect("read").len(), 2);
        }
    }
}
