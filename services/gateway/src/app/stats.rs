use bus::calls;
use serde_json::{Value, json};

use super::{App, Failure, Outcome};

/// Readings of one container: each carries the processor's part of the one before it.
pub struct Stats {
    pub id: String,
    pub node_id: String,
    previous: Option<Value>,
}

impl Stats {
    pub fn new(id: String, node_id: String) -> Self {
        Self { id, node_id, previous: None }
    }

    pub async fn next(&mut self, app: &App) -> Outcome<Value> {
        let request = proto::StatsRequest { id: self.id.clone() };
        let reply = app.node_call::<calls::ContainerStats>(&self.node_id, &request).await?;
        let mut now: Value =
            serde_json::from_slice(&reply.json).map_err(|e| Failure::invalid(format!("a reading: {e}")))?;
        let read = now.clone();
        let nothing = || {
            json!({"cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
                "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0}})
        };
        let (before, cpu) = match self.previous.take() {
            Some(previous) => (previous["read"].clone(), previous["cpu_stats"].clone()),
            None => (json!("0001-01-01T00:00:00Z"), nothing()),
        };
        now["preread"] = before;
        now["precpu_stats"] = cpu;
        self.previous = Some(read);
        Ok(now)
    }
}
