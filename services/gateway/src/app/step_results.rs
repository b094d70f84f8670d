use prost::Message as _;

use super::images::layer_row;
use super::{App, Failure, Outcome};

/// A build has far fewer steps that could be asked for at once.
const MAX_KEYS: usize = 512;

impl App {
    /// The results of those keys that are known. The worker asks for each layer under its lease, and takes one that is
    /// gone for a miss.
    pub async fn look_up_results(&self, request: proto::ResultLookup) -> Outcome<proto::ResultLookupReply> {
        if request.keys.len() > MAX_KEYS {
            return Err(Failure::invalid(format!("more than {MAX_KEYS} keys are asked for")));
        }
        let found = self.db.step_results(&request.keys).await?;
        // A record that cannot be read is none, and the next one takes its place.
        let records =
            found.iter().filter_map(|(_, record)| proto::StepRecord::decode(record.as_slice()).ok()).collect();
        Ok(proto::ResultLookupReply { records })
    }

    /// The layers are stored.
    ///
    /// # Errors
    /// As [`App::held_by`].
    pub async fn put_result(&self, user: &str, request: proto::ResultPut) -> Outcome<proto::Empty> {
        self.held_by(user, &request.build_id, request.attempt).await?;
        let record = request.record.ok_or_else(|| Failure::invalid("a step without a result"))?;
        if record.key.is_empty() {
            return Err(Failure::invalid("a result without a key"));
        }
        let result = metadata::StepResult {
            key: record.key.clone(),
            record: record.encode_to_vec(),
            description: record.description.clone(),
            layers: record.layers.into_iter().map(layer_row).collect(),
        };
        self.db.record_step_result(&result).await?;
        self.cache_grew.notify_one();
        Ok(proto::Empty {})
    }
}
