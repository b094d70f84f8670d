//! The files of the corpus.

use serde::Deserialize;

/// One Dockerfile, its context, and where the peer's BuildKit 0.13 does not know it yet, what must come out: as BuildKit
/// 0.25 makes it, or the Dockerfile reference rules.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerfileCase {
    pub name: String,
    /// Its text; empty: the context has it, or it is missing on purpose.
    #[serde(default)]
    pub dockerfile: String,
    /// Lines of shell that make the context, in its folder; what lies beside the folder is not sent.
    #[serde(default)]
    pub context: String,
    /// More arguments of `docker build`.
    #[serde(default)]
    pub args: Vec<String>,
    /// The listing without the config, for what only newer BuildKits know: the Dockerfile reference rules.
    #[serde(default)]
    pub tree: Option<String>,
    /// The error of newer BuildKits where 0.13 has other words or none; the line that says why must hold it.
    #[serde(default)]
    pub error: Option<String>,
}

impl DockerfileCase {
    /// Whether the peer is asked.
    pub fn has_peer(&self) -> bool {
        self.tree.is_none() && self.error.is_none()
    }
}

/// Lines that only one side has, and why that is right.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerfileDifference {
    /// The cases, all with the same lines.
    pub cases: Vec<String>,
    #[serde(default)]
    pub docker: Vec<String>,
    #[serde(default)]
    pub here: Vec<String>,
    pub why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    case: Vec<DockerfileCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DifferenceFile {
    #[serde(default)]
    difference: Vec<DockerfileDifference>,
}

/// All cases, file by file.
pub fn dockerfile_cases() -> Vec<DockerfileCase> {
    let files = [
        ("copy", include_str!("../../dockerfiles/copy.toml")),
        ("add", include_str!("../../dockerfiles/add.toml")),
        ("ignore", include_str!("../../dockerfiles/ignore.toml")),
        ("run", include_str!("../../dockerfiles/run.toml")),
        ("config", include_str!("../../dockerfiles/config.toml")),
        ("stages", include_str!("../../dockerfiles/stages.toml")),
        ("errors", include_str!("../../dockerfiles/errors.toml")),
        ("reference", include_str!("../../dockerfiles/reference.toml")),
        ("expansion", include_str!("../../dockerfiles/expansion.toml")),
        ("flags", include_str!("../../dockerfiles/flags.toml")),
        ("mounts", include_str!("../../dockerfiles/mounts.toml")),
    ];
    let read = |(name, text)| match toml::from_str::<CaseFile>(text) {
        Ok(file) => file.case,
        Err(error) => panic!("dockerfiles/{name}.toml: {error}"),
    };
    files.into_iter().flat_map(read).collect()
}

/// All differences that are known and explained.
pub fn dockerfile_differences() -> Vec<DockerfileDifference> {
    toml::from_str::<DifferenceFile>(include_str!("../../dockerfiles/differences.toml"))
        .expect("dockerfiles/differences.toml is well formed")
        .difference
}
