//! The files beside the code: what is run, and what may differ.

use serde::Deserialize;

/// One flow on a fresh engine; its steps share files and containers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    /// Lines of shell with `docker` in them, or `api METHOD PATH [BODY]`.
    pub steps: Vec<String>,
    #[serde(default)]
    pub ids: Ids,
}

/// Whether ids and digests are the same on both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// Each side has its own: only their form counts.
    #[default]
    Blanked,
    Kept,
}

/// A step whose outputs may differ, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    pub case: String,
    /// The step's text, word for word.
    pub step: String,
    /// What both print, and why that is right.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DifferenceFile {
    #[serde(default)]
    difference: Vec<Difference>,
}

/// All cases, in the order of the file.
pub fn cases() -> Vec<Case> {
    toml::from_str::<CaseFile>(include_str!("../cases.toml")).expect("cases.toml is well formed").case
}

/// The cases that are run once with each registry.
pub fn registry_cases() -> Vec<Case> {
    toml::from_str::<CaseFile>(include_str!("../registry_cases.toml")).expect("registry_cases.toml is well formed").case
}

/// All differences that are known and explained.
pub fn differences() -> Vec<Difference> {
    toml::from_str::<DifferenceFile>(include_str!("../differences.toml"))
        .expect("differences.toml is well formed")
        .difference
}
