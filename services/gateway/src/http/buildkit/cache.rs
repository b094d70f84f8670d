//! `Control/DiskUsage` and `Control/Prune`: what `docker buildx du` lists and `docker buildx prune` lets go of.

use std::collections::HashSet;

use bollard_buildkit_proto::moby::buildkit::v1 as wire;
use serde_json::json;

use super::filter::{Field, Filter, Filtered};
use super::status::time;
use crate::app::build_cache::{CacheRecord, Keep, Prune};
use crate::app::filters::{Filters, OF_BUILD_PRUNE};
use crate::app::{App, Failure, Outcome};

const FIELDS: &[Field] = &[
    Field::text("id"),
    Field::text("parents"),
    Field::text("description"),
    Field::text("inuse"),
    Field::text("mutable"),
    Field::text("immutable"),
    Field::text("type"),
    Field::text("shared"),
    Field::text("private"),
];

impl Filtered for wire::UsageRecord {
    fn text(&self, field: &str) -> Option<String> {
        match field {
            "id" => Some(self.id.clone()),
            "parents" => Some(self.parents.join(";")),
            "description" => Some(self.description.clone()),
            "inuse" => Some(self.in_use.to_string()),
            "mutable" => Some(self.mutable.to_string()),
            "immutable" => Some((!self.mutable).to_string()),
            "type" => Some(self.record_type.clone()),
            "shared" => Some(self.shared.to_string()),
            "private" => Some((!self.shared).to_string()),
            _ => None,
        }
    }

    fn number(&self, _: &str) -> i64 {
        0
    }
}

/// What the filter passes of what was not used since `age_limit_ns` (0: of all).
pub async fn usage(app: &App, filter: &[String], age_limit_ns: i64) -> Outcome<Vec<wire::UsageRecord>> {
    Ok(passed(app, filter, age_limit_ns).await?.iter().map(record).collect())
}

async fn passed(app: &App, filter: &[String], age_limit_ns: i64) -> Outcome<Vec<CacheRecord>> {
    let filter = Filter::parse(filter, FIELDS)?;
    let before_ms = app.db.now_ms() - age_limit_ns / 1_000_000;
    let all = app.cache_usage().await?.records;
    let old = all.into_iter().filter(|record| age_limit_ns == 0 || record.last_used_ms < before_ms);
    Ok(old.filter(|shown| filter.passes(&record(shown))).collect())
}

/// Lets go of what the request names; gives what went, each with the bytes of its own.
pub async fn prune(app: &App, request: &wire::PruneRequest) -> Outcome<Vec<wire::UsageRecord>> {
    let listed = passed(app, &request.filter, request.keep_duration).await?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = listed.iter().map(|record| record.key.as_str()).collect();
    let size = |bytes: i64| u64::try_from(bytes).map_err(|_| Failure::invalid(format!("invalid size {bytes}")));
    let wanted = Prune {
        filters: Filters::parse(&json!({"id": ids}).to_string(), OF_BUILD_PRUNE)?,
        all: request.all,
        keep: Keep {
            reserved_bytes: size(request.reserved_space)?,
            max_used_bytes: size(request.max_used_space)?,
            min_free_bytes: size(request.min_free_space)?,
        },
        is_dry: false,
    };
    let gone: HashSet<String> = app.prune_cache(&wanted).await?.keys.into_iter().collect();
    let gone = listed.iter().filter(|shown| gone.contains(&shown.key));
    Ok(gone.map(|shown| wire::UsageRecord { size: signed(shown.bytes), ..record(shown) }).collect())
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// In BuildKit's message.
fn record(record: &CacheRecord) -> wire::UsageRecord {
    let CacheRecord { key, kind, description, bytes: _, whole_bytes, is_in_use, is_shared, created_ms, last_used_ms } =
        record;
    let moment = |ms: &i64| time(ms.saturating_mul(1_000_000));
    wire::UsageRecord {
        id: key.clone(),
        mutable: *kind == "exec.cachemount",
        in_use: *is_in_use,
        size: signed(*whole_bytes),
        created_at: moment(created_ms),
        last_used_at: moment(last_used_ms),
        description: description.clone(),
        record_type: (*kind).to_owned(),
        shared: *is_shared,
        ..Default::default()
    }
}
