use crate::{Database, Error};

impl Database {
    /// The image that a step with this key made.
    pub async fn step(&self, key: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT image_id FROM steps WHERE key = $1").bind(key).fetch_optional(&self.readers).await?;
        Ok(row.map(|row| row.0))
    }

    /// The last result of a key counts.
    pub async fn record_step(&self, key: &str, image_id: &str) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO steps (key, image_id) VALUES ($1, $2)
             ON CONFLICT (key) DO UPDATE SET image_id = excluded.image_id",
        )
        .bind(key)
        .bind(image_id)
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}
