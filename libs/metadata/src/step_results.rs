use crate::images::{Layer, parse_layers};
use crate::{Database, Error};

/// What a step of the graph builder made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepResult {
    pub key: String,
    /// Encoded, as the workers know it.
    pub record: Vec<u8>,
    pub layers: Vec<Layer>,
    /// For people: "[build 2/5] RUN make".
    pub description: String,
}

/// A use is noted at most so often.
const TOUCH_MS: i64 = 60_000;

impl Database {
    /// The encoded records of those keys that are known, with their keys; they count as used now.
    pub async fn step_results(&self, keys: &[String]) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let now = self.now_ms();
        let mut found = Vec::new();
        for key in keys {
            let row: Option<(Vec<u8>, i64)> =
                self.read("SELECT record, last_used_ms FROM step_results WHERE key = $1").bind(key).optional().await?;
            let Some((record, used_ms)) = row else { continue };
            if used_ms < now - TOUCH_MS {
                self.write("UPDATE step_results SET last_used_ms = $2 WHERE key = $1")
                    .bind(key)
                    .bind(now)
                    .run()
                    .await?;
            }
            found.push((key.clone(), record));
        }
        Ok(found)
    }

    /// The last result of a key counts.
    pub async fn record_step_result(&self, result: &StepResult) -> Result<(), Error> {
        let StepResult { key, record, layers, description } = result;
        let size: u64 = layers.iter().map(|layer| layer.size).sum();
        let layers = serde_json::to_string(layers).expect("plain data always serialises");
        let now = self.now_ms();
        self.write(
            "INSERT INTO step_results (key, record, layers, description, size, created_ms, last_used_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $6)
             ON CONFLICT (key) DO UPDATE SET record = excluded.record, layers = excluded.layers,
                 description = excluded.description, size = excluded.size, created_ms = excluded.created_ms,
                 last_used_ms = excluded.last_used_ms",
        )
        .bind(key)
        .bind(record)
        .bind(layers)
        .bind(description)
        .bind(i64::try_from(size).unwrap_or(i64::MAX))
        .bind(now)
        .run()
        .await?;
        Ok(())
    }

    /// The layers of all results: they are in use.
    pub async fn step_result_layers(&self) -> Result<Vec<Layer>, Error> {
        let rows: Vec<(String, String)> = self.read("SELECT key, layers FROM step_results").all().await?;
        let mut layers = Vec::new();
        for (key, json) in rows {
            layers.extend(parse_layers(&key, &json)?);
        }
        Ok(layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_both;

    on_both! {
        async fn the_last_result_of_a_key_counts(db: Database) {
            let layer = |name: &str| Layer {
                diff_id: format!("sha256:{name}"),
                media_type: String::new(),
                digest: format!("sha256:{name}"),
                size: 7,
                content_bytes: 5,
            };
            let result = |record: &[u8], layers: &[Layer]| StepResult {
                key: "k".to_owned(),
                record: record.to_vec(),
                layers: layers.to_vec(),
                description: "RUN x".to_owned(),
            };
            assert_eq!(db.step_results(&["k".to_owned()]).await.expect("read"), []);
            db.record_step_result(&result(b"1", &[layer("a")])).await.expect("recorded");
            db.record_step_result(&result(b"2", &[layer("b")])).await.expect("recorded again");
            let asked = ["other".to_owned(), "k".to_owned()];
            assert_eq!(db.step_results(&asked).await.expect("read"), [("k".to_owned(), b"2".to_vec())]);
            assert_eq!(db.step_result_layers().await.expect("read"), [layer("b")]);
        }
    }
}
