//! What was decided of build workers while they ran.

use std::collections::BTreeMap;

use crate::{Database, Error};

/// What was decided of a build worker. One of which nothing was decided has no row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerOrders {
    /// It takes no new builds and steps.
    pub drained: bool,
    /// Labels that were set, and those of the worker's own that were taken away.
    pub labels: BTreeMap<String, Option<String>>,
}

impl WorkerOrders {
    /// The labels that count, of those that the worker was started with.
    pub fn over(&self, own: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> = own.into_iter().collect();
        for (name, value) in &self.labels {
            match value {
                Some(value) => labels.insert(name.clone(), value.clone()),
                None => labels.remove(name),
            };
        }
        labels
    }
}

impl Database {
    /// By worker.
    pub async fn worker_orders(&self) -> Result<BTreeMap<String, WorkerOrders>, Error> {
        let rows: Vec<(String, bool, String)> = self.read("SELECT id, drained, labels FROM workers").all().await?;
        let orders = |(id, drained, labels): (_, _, String)| {
            (id, WorkerOrders { drained, labels: serde_json::from_str(&labels).unwrap_or_default() })
        };
        Ok(rows.into_iter().map(orders).collect())
    }

    /// Says whether a worker takes new builds.
    pub async fn drain_worker(&self, id: &str, drained: bool) -> Result<(), Error> {
        self.write(
            "INSERT INTO workers (id, drained, labels) VALUES ($1, $2, '{}')
             ON CONFLICT (id) DO UPDATE SET drained = excluded.drained",
        )
        .bind(id)
        .bind(drained)
        .run()
        .await?;
        Ok(())
    }

    /// Sets labels of a worker, and takes those away that have no value; the others stay.
    pub async fn label_worker(&self, id: &str, changes: &BTreeMap<String, Option<String>>) -> Result<(), Error> {
        loop {
            let kept: Option<(String,)> =
                self.read("SELECT labels FROM workers WHERE id = $1").bind(id).optional().await?;
            let before = kept.map_or_else(|| "{}".to_owned(), |row| row.0);
            let mut labels: BTreeMap<String, Option<String>> = serde_json::from_str(&before).unwrap_or_default();
            labels.extend(changes.clone());
            let changed = self
                .write(
                    "INSERT INTO workers (id, drained, labels) VALUES ($1, FALSE, $2)
                     ON CONFLICT (id) DO UPDATE SET labels = excluded.labels WHERE workers.labels = $3",
                )
                .bind(id)
                .bind(serde_json::to_string(&labels).unwrap_or_default())
                .bind(before)
                .run()
                .await?;
            // Else somebody else has changed them in between.
            if changed > 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::on_both;

    on_both! {
        async fn orders_of_workers(db: Database) {
            assert!(db.worker_orders().await.expect("read").is_empty());
            let change = |pairs: &[(&str, Option<&str>)]| {
                let pair = |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
                pairs.iter().map(pair).collect::<BTreeMap<_, _>>()
            };
            db.label_worker("w", &change(&[("disk", Some("ssd")), ("own", None)])).await.expect("labelled");
            db.drain_worker("w", true).await.expect("drained");
            db.label_worker("w", &change(&[("disk", Some("hdd")), ("zone", Some(""))])).await.expect("labelled");
            let orders = db.worker_orders().await.expect("read");
            assert!(orders["w"].drained && orders.len() == 1);
            let own = [("own", "x"), ("arch", "y")].map(|(name, value)| (name.to_owned(), value.to_owned()));
            let labels: Vec<_> = orders["w"].over(own).into_iter().collect();
            let wanted = [("arch", "y"), ("disk", "hdd"), ("zone", "")];
            assert_eq!(labels, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
            db.drain_worker("w", false).await.expect("drained");
            let orders = db.worker_orders().await.expect("read");
            assert!(!orders["w"].drained && orders["w"].labels.len() == 3);
        }
    }
}
