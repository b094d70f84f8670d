use crate::holds::lock_image;
use crate::{Database, Error};

/// A container's record. `spec` and `status` are the bus's encoded messages, `request` is the client's JSON.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub node_id: String,
    pub image_id: String,
    pub spec: Vec<u8>,
    pub request: String,
    pub status: Vec<u8>,
    pub created_ms: i64,
    pub epoch: i64,
    pub seq: i64,
}

/// One numbered change of a container.
#[derive(Clone, Debug)]
pub struct Change {
    /// Who says it; a node changes its own containers only.
    pub node_id: String,
    pub container_id: String,
    pub epoch: u64,
    pub seq: u64,
    /// Encoded status.
    pub status: Vec<u8>,
    /// The container is gone.
    pub removed: bool,
}

impl Database {
    /// # Errors
    /// `Taken` when another container has the name, `NoImage` when the image has gone.
    pub async fn insert_container(&self, container: &Container) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        if !container.image_id.is_empty() && !lock_image(&mut tx, &container.image_id).await? {
            return Err(Error::NoImage(container.image_id.clone()));
        }
        let done = tx
            .query(
                "INSERT INTO containers (id, name, node_id, image_id, spec, request, status, created_ms, epoch, seq)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(&container.id)
            .bind(&container.name)
            .bind(&container.node_id)
            .bind(&container.image_id)
            .bind(&container.spec)
            .bind(&container.request)
            .bind(&container.status)
            .bind(container.created_ms)
            .bind(container.epoch)
            .bind(container.seq)
            .run()
            .await;
        match done {
            Err(error) if error.is_unique_violation() => return Err(Error::Taken(container.name.clone())),
            other => other?,
        };
        tx.commit().await
    }

    /// Every container, newest first.
    pub async fn containers(&self) -> Result<Vec<Container>, Error> {
        let query = "SELECT id, name, node_id, image_id, spec, request, status, created_ms, epoch, seq
                     FROM containers ORDER BY created_ms DESC, id";
        self.read(query).all().await
    }

    /// By full id, by name, then by the beginning of an id: at most two, so that the caller sees an ambiguous one.
    pub async fn find_containers(&self, wanted: &str) -> Result<Vec<Container>, Error> {
        let exact: Option<Container> = self
            .read(
                "SELECT id, name, node_id, image_id, spec, request, status, created_ms, epoch, seq
             FROM containers WHERE id = $1 OR name = $1",
            )
            .bind(wanted)
            .optional()
            .await?;
        if let Some(found) = exact {
            return Ok(vec![found]);
        }
        self.read(
            "SELECT id, name, node_id, image_id, spec, request, status, created_ms, epoch, seq
             FROM containers WHERE substr(id, 1, CAST($1 AS INTEGER)) = $2 LIMIT 2",
        )
        .bind(wanted.len() as i64)
        .bind(wanted)
        .all()
        .await
    }

    pub async fn containers_of_image(&self, image_id: &str) -> Result<Vec<Container>, Error> {
        self.read(
            "SELECT id, name, node_id, image_id, spec, request, status, created_ms, epoch, seq
             FROM containers WHERE image_id = $1",
        )
        .bind(image_id)
        .all()
        .await
    }

    /// By full id.
    pub async fn container(&self, id: &str) -> Result<Option<Container>, Error> {
        self.read(
            "SELECT id, name, node_id, image_id, spec, request, status, created_ms, epoch, seq
             FROM containers WHERE id = $1",
        )
        .bind(id)
        .optional()
        .await
    }

    /// Applies changes that are newer than their rows, and the position of the stream that they came from.
    /// Says of each whether it was applied.
    pub async fn apply(&self, changes: &[Change], position: Option<(&str, u64)>) -> Result<Vec<bool>, Error> {
        let mut tx = self.begin().await?;
        let mut applied = vec![false; changes.len()];
        // Two gateways lock the same rows in the same order; the changes of one container keep theirs.
        let mut order: Vec<usize> = (0..changes.len()).collect();
        order.sort_by_key(|&at| &changes[at].container_id);
        for at in order {
            let change = &changes[at];
            let (epoch, seq) = (change.epoch.cast_signed(), change.seq.cast_signed());
            let query = if change.removed {
                tx.query(
                    "DELETE FROM containers
                     WHERE id = $1 AND node_id = $4 AND (epoch < $2 OR (epoch = $2 AND seq < $3))",
                )
            } else {
                tx.query(
                    "UPDATE containers SET status = $5, epoch = $2, seq = $3
                     WHERE id = $1 AND node_id = $4 AND (epoch < $2 OR (epoch = $2 AND seq < $3))",
                )
            };
            let query = query.bind(&change.container_id).bind(epoch).bind(seq).bind(&change.node_id);
            let query = if change.removed { query } else { query.bind(&change.status) };
            applied[at] = query.run().await? > 0;
        }
        if let Some((stream, number)) = position {
            tx.query(
                // Another gateway may be ahead.
                "INSERT INTO position (stream, number) VALUES ($1, $2)
                 ON CONFLICT (stream) DO UPDATE SET number = excluded.number
                 WHERE position.number < excluded.number",
            )
            .bind(stream)
            .bind(number.cast_signed())
            .run()
            .await?;
        }
        tx.commit().await?;
        Ok(applied)
    }

    /// # Errors
    /// `Taken` when another container has the name.
    pub async fn rename_container(&self, id: &str, name: &str, spec: &[u8]) -> Result<(), Error> {
        let done = self
            .write("UPDATE containers SET name = $2, spec = $3 WHERE id = $1")
            .bind(id)
            .bind(name)
            .bind(spec)
            .run()
            .await;
        match done {
            Err(error) if error.is_unique_violation() => Err(Error::Taken(name.to_owned())),
            other => other.map(drop),
        }
    }

    /// A record that no node holds, and its execs; false when it was gone already.
    pub async fn forget_container(&self, id: &str) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let done = tx.query("DELETE FROM containers WHERE id = $1").bind(id).run().await?;
        tx.query("DELETE FROM execs WHERE container_id = $1").bind(id).run().await?;
        tx.commit().await?;
        Ok(done > 0)
    }

    pub async fn set_container_spec(&self, id: &str, spec: &[u8], request: &str) -> Result<(), Error> {
        self.write("UPDATE containers SET spec = $2, request = $3 WHERE id = $1")
            .bind(id)
            .bind(spec)
            .bind(request)
            .run()
            .await?;
        Ok(())
    }
}
