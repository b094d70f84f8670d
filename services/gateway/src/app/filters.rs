use std::collections::BTreeMap;

use serde_json::Value;

use super::{Failure, Outcome};

/// The filters of a request: each key may hold several values.
#[derive(Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Keys of `docker images`.
pub const OF_IMAGES: &[&str] = &["dangling", "label", "label!", "before", "since", "reference", "until"];
/// Keys of `docker ps`.
pub const OF_CONTAINERS: &[&str] = &[
    "ancestor",
    "before",
    "since",
    "exited",
    "expose",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "status",
    "volume",
];
pub const OF_NETWORKS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
pub const OF_VOLUMES: &[&str] = &["dangling", "driver", "label", "name"];
/// Keys of `docker search`.
pub const OF_SEARCH: &[&str] = &["is-automated", "is-official", "stars"];
pub const OF_PRUNE: &[&str] = &["label", "label!", "until"];
pub const OF_IMAGE_PRUNE: &[&str] = &["dangling", "label", "label!", "until"];
/// Keys of `docker builder prune`; `unused-for` is what `until` is called there by newer clients.
pub const OF_BUILD_PRUNE: &[&str] =
    &["description", "id", "inuse", "label", "label!", "private", "shared", "type", "unused-for", "until"];
/// Keys of `/boxyard/v1/caches`.
pub const OF_CACHES: &[&str] = &["id", "sharing", "unused-for", "until", "worker"];
/// Keys of `boxyard build ls`.
pub const OF_BUILDS: &[&str] = &["builder", "id", "since", "status", "tag", "until", "user", "worker"];
pub const OF_VOLUME_PRUNE: &[&str] = &["all", "label", "label!"];

impl Filters {
    /// Reads `{"key": {"value": true}}` or the old `{"key": ["value"]}`; empty text is no filter.
    ///
    /// # Errors
    /// `InvalidArgument` for other JSON, and for a key that is not among `allowed`.
    pub fn parse(text: &str, allowed: &[&str]) -> Outcome<Self> {
        let filters = Self::read(text)?;
        match filters.0.keys().find(|key| !allowed.contains(&key.as_str())) {
            Some(key) => Err(Failure::invalid(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    /// The same with whatever keys.
    ///
    /// # Errors
    /// `InvalidArgument` for other JSON.
    pub fn read(text: &str) -> Outcome<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let wrong = || Failure::invalid("invalid filter");
        let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
        let mut filters = BTreeMap::new();
        for (key, values) in value.as_object().ok_or_else(wrong)? {
            let values: Vec<String> = match values {
                Value::Object(map) => {
                    map.iter().filter(|(_, on)| **on != Value::Bool(false)).map(|(key, _)| key.clone()).collect()
                }
                Value::Array(list) => {
                    list.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(wrong)?
                }
                _ => return Err(wrong()),
            };
            filters.insert(key.clone(), values);
        }
        Ok(Self(filters))
    }

    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|values| !values.is_empty())
    }

    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// True without the filter, or when one of its values passes.
    pub fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(test)
    }

    /// One yes or no.
    ///
    /// # Errors
    /// `InvalidArgument` for another word, or for both.
    pub fn flag(&self, key: &str) -> Outcome<Option<bool>> {
        let mut found = None;
        for value in self.values(key) {
            let flag = contexts::parse_bool(value)
                .ok_or_else(|| Failure::invalid(format!("invalid filter '{key}=[{value}]'")))?;
            if found.is_some_and(|other| other != flag) {
                return Err(Failure::invalid(format!("invalid filter '{key}': both true and false")));
            }
            found = Some(flag);
        }
        Ok(found)
    }

    /// `label` must all be there, and none of `label!`.
    pub fn labels(&self, has: impl Fn(&str, Option<&str>) -> bool) -> bool {
        let there = |wanted: &str| match wanted.split_once('=') {
            Some((name, value)) => has(name, Some(value)),
            None => has(wanted, None),
        };
        self.values("label").all(there) && !self.values("label!").any(there)
    }

    /// `until` as milliseconds since 1970: a time stamp, seconds, or a duration before `now_ms`.
    ///
    /// # Errors
    /// `InvalidArgument` for several, or for what is no time.
    pub fn until_ms(&self, now_ms: i64) -> Outcome<Option<i64>> {
        self.moment_ms("until", now_ms)
    }

    /// As [`Self::until_ms`], by another key.
    ///
    /// # Errors
    /// `InvalidArgument` for several, or for what is no time.
    pub fn moment_ms(&self, key: &str, now_ms: i64) -> Outcome<Option<i64>> {
        let mut values = self.values(key);
        let Some(text) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Failure::invalid(format!("more than one {key} filter specified")));
        }
        time_ms(text, now_ms)
            .map(Some)
            .ok_or_else(|| Failure::invalid(format!("failed to parse value as time or duration: {text:?}")))
    }
}

/// Milliseconds since 1970 of a time stamp, seconds, or a duration before `now_ms`.
pub fn time_ms(text: &str, now_ms: i64) -> Option<i64> {
    if let Some(length) = duration_ms(text) {
        return Some(now_ms.saturating_sub(length));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Some((seconds * 1000.0) as i64);
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    let local = text.parse::<jiff::civil::DateTime>().ok()?;
    local.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
}

/// Go's durations: `1h30m`, `10s`, `500ms`, `1.5h`.
pub fn duration_ms(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..unit] {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            "us" | "µs" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[unit..];
    }
    Some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read_and_others_refused() {
        for (text, wanted) in [
            ("", Some(vec![])),
            (r#"{"label":["a","b=c"]}"#, Some(vec!["a", "b=c"])),
            (r#"{"label":{"a":true,"x":false}}"#, Some(vec!["a"])),
            (r#"{"nosuch":["a"]}"#, None),
            (r#"{"label":"a"}"#, None),
            (r#"{"label":[1]}"#, None),
            ("[]", None),
            ("notjson", None),
        ] {
            let read = Filters::parse(text, OF_PRUNE).ok();
            let values = read.map(|filters| filters.values("label").map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(values, wanted.map(|list| list.into_iter().map(str::to_owned).collect()), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_docker_reads_them() {
        for (text, wanted) in [
            ("10s", Some(990_000)),
            ("1m30s", Some(910_000)),
            ("0.5h", Some(-800_000)),
            ("12", Some(12_000)),
            ("1970-01-01T00:00:05Z", Some(5000)),
            ("1970-01-01T00:00:05", Some(5000)),
            ("1970-01-02", Some(86_400_000)),
            ("soon", None),
        ] {
            assert_eq!(time_ms(text, 1_000_000), wanted, "{text}");
        }
    }
}
