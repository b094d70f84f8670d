//! A step's key: it is made of all that its result depends on, and of nothing else. Pure.
//!
//! What counts: the parent's layers by content, the platform, the operation with the variables that it sees, and the
//! files that it reads by content, mode, owner, attributes and name. What does not: times of files, values of secrets, proxies,
//! what a cache mount holds, limits, where a layer's blob lies, and how the step is called.

use std::collections::BTreeSet;

use model::Digest;
use proto::step_definition::Operation;
use serde_json::{Value, json};

/// Changes when keys are made in another way: no older result is found then.
const VERSION: &str = "graph step 3";

/// What a key is made of besides the definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// What the step reads, in the order in which it names it.
    pub files: Vec<FileInput>,
    /// Names of variables that do not count.
    pub uncounted: BTreeSet<String>,
}

/// A file or folder that a step reads: its name where that shows in the result, and its digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileInput {
    pub name: String,
    pub digest: String,
}

/// The key: 64 hex digits.
pub fn of(definition: &proto::StepDefinition, inputs: &Inputs) -> String {
    let epoch = definition.has_epoch.then_some(definition.source_date_epoch);
    let files: Vec<_> = inputs.files.iter().map(|file| (&file.name, &file.digest)).collect();
    let all = json!([VERSION, definition.platform, parent(definition), epoch, operation(definition, inputs), files]);
    Digest::of(all.to_string().as_bytes()).hex().to_owned()
}

fn parent(definition: &proto::StepDefinition) -> Vec<&str> {
    definition.parent.iter().map(|layer| layer.diff_id.as_str()).collect()
}

fn operation(definition: &proto::StepDefinition, inputs: &Inputs) -> Value {
    match &definition.operation {
        Some(Operation::Run(run)) => json!({"run": run_operation(run, inputs)}),
        Some(Operation::Copy(copy)) => json!({"copy": {
            "destination": copy.destination, "chown": copy.chown, "chmod": copy.chmod, "excludes": copy.excludes,
            "parents": copy.parents, "link": copy.link, "cwd": copy.cwd,
            // The files count by what they are; here only how they are taken.
            "unpack": copy.sources.iter().map(|source| source.unpack).collect::<Vec<_>>(),
        }}),
        Some(Operation::Folder(folder)) => json!({"folder": {"path": folder.path, "user": folder.user}}),
        None => Value::Null,
    }
}

fn run_operation(run: &proto::RunOperation, inputs: &Inputs) -> Value {
    let counts = |entry: &&String| {
        let name = entry.split('=').next().unwrap_or_default();
        !inputs.uncounted.contains(name)
    };
    let scripts: Vec<_> = run.scripts.iter().map(|script| json!([script.name, digest(&script.content)])).collect();
    json!({
        "args": run.args, "env": run.env.iter().filter(counts).collect::<Vec<_>>(), "cwd": run.cwd, "user": run.user,
        "mounts": run.mounts.iter().map(mount).collect::<Vec<_>>(), "network": run.network, "security": run.security,
        "hosts": run.extra_hosts, "ulimits": run.ulimits, "scripts": scripts,
    })
}

/// What is mounted counts among the files.
fn mount(mount: &proto::StepMount) -> Value {
    json!([
        mount.r#type,
        mount.target,
        mount.readonly,
        mount.id,
        mount.sharing,
        mount.mode,
        mount.uid,
        mount.gid,
        mount.size_bytes,
        mount.required,
        mount.env,
    ])
}

pub fn digest(content: &[u8]) -> String {
    Digest::of(content).hex().to_owned()
}

#[cfg(test)]
mod tests;
