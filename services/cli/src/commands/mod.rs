//! One file for each command noun; this one holds the tree of names.

pub mod archive;
pub mod attach;
pub mod build;
pub mod builds;
pub mod cache;
pub mod cp;
pub mod create;
pub mod df;
pub mod exec;
pub mod image;
pub mod images;
pub mod inspect;
pub mod lifecycle;
pub mod login;
pub mod logs;
pub mod look;
pub mod manifest;
pub mod ps;
pub mod pull;
pub mod push;
pub mod run;
pub mod search;
pub mod stats;
pub mod system;
pub mod tree;
pub mod usage;
pub mod version;
pub mod volume;
pub mod why_kept;
pub mod worker;

use std::io::{Write, stdin, stdout};

use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// `a=1,b=2`, sorted.
pub fn joined_labels(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let mut pairs: Vec<_> =
        labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
    pairs.sort();
    pairs.join(",")
}

/// Asks; anything but `y` is no.
pub fn confirm(warning: &str) -> Outcome<bool> {
    print!("{warning}\nAre you sure you want to continue? [y/N] ");
    stdout().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// The system's own words for an error, in lower case and without Rust's number.
pub fn os_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Items of an answer's list; none where there is no list.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Text of an answer; empty where there is none.
pub fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `--format` of what is shown as tables or as JSON alone.
pub fn check_json(format: Option<&str>) -> Outcome {
    match format {
        None | Some("json") => Ok(()),
        Some(other) => Err(Failure::new(format!("unsupported format {other:?}: write json"))),
    }
}
