use crate::{Database, Error, now_ms};

/// A command in a running container. `spec` and `status` are the bus's encoded messages.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Exec {
    pub id: String,
    pub container_id: String,
    pub node_id: String,
    pub spec: Vec<u8>,
    pub started: bool,
    pub status: Vec<u8>,
}

impl Database {
    pub async fn insert_exec(&self, exec: &Exec) -> Result<(), Error> {
        self.write(
            "INSERT INTO execs (id, container_id, node_id, spec, started, status, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&exec.id)
        .bind(&exec.container_id)
        .bind(&exec.node_id)
        .bind(&exec.spec)
        .bind(exec.started)
        .bind(&exec.status)
        .bind(now_ms())
        .run()
        .await?;
        Ok(())
    }

    pub async fn exec(&self, id: &str) -> Result<Option<Exec>, Error> {
        self.read("SELECT id, container_id, node_id, spec, started, status FROM execs WHERE id = $1")
            .bind(id)
            .optional()
            .await
    }

    /// Oldest first.
    pub async fn execs_of(&self, container_id: &str) -> Result<Vec<Exec>, Error> {
        let query = "SELECT id, container_id, node_id, spec, started, status FROM execs
                     WHERE container_id = $1 ORDER BY created_ms, id";
        self.read(query).bind(container_id).all().await
    }

    /// Marks it started; false when somebody has started it already.
    pub async fn claim_exec(&self, id: &str) -> Result<bool, Error> {
        let done = self.write("UPDATE execs SET started = TRUE WHERE id = $1 AND NOT started").bind(id).run().await?;
        Ok(done > 0)
    }

    pub async fn set_exec_status(&self, id: &str, status: &[u8]) -> Result<(), Error> {
        self.write("UPDATE execs SET status = $2 WHERE id = $1").bind(id).bind(status).run().await?;
        Ok(())
    }
}
