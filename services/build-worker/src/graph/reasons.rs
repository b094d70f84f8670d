//! What a step's key is made of, one by one, so that two builds can be compared. Pure.

use proto::step_definition::Operation;

use super::files::{Origin, Reading};
use super::key::{self, FileInput, Inputs};
use super::view::View;

/// Of one step; of more files than that their folders are told.
const MAX_ROWS: usize = 2000;
const SHOWN_TEXT: usize = 200;

/// `text` is the instruction as it is shown.
pub fn of(
    definition: &proto::StepDefinition,
    text: &str,
    inputs: &Inputs,
    reads: &[(Origin, Reading)],
) -> Vec<proto::KeyInput> {
    let mut rows = vec![
        row("instruction", "", text.chars().take(SHOWN_TEXT).collect()),
        row("platform", "", definition.platform.clone()),
    ];
    if !definition.parent.is_empty() {
        rows.push(row("parent", "", chain(&definition.parent)));
    }
    match &definition.operation {
        Some(Operation::Run(run)) => {
            for (name, value) in run.env.iter().filter_map(|entry| entry.split_once('=')) {
                if !inputs.uncounted.contains(name) {
                    rows.push(row("env", name, short(value.as_bytes())));
                }
            }
            for mount in &run.mounts {
                let told = proto::StepMount { from: None, ..mount.clone() };
                let name = if mount.target.is_empty() { &mount.id } else { &mount.target };
                rows.push(row("mount", name, short(format!("{told:?}").as_bytes())));
            }
            let options =
                [("cwd", &run.cwd), ("user", &run.user), ("network", &run.network), ("security", &run.security)];
            rows.extend(options.map(|(name, value)| row("option", name, value.clone())));
        }
        Some(Operation::Folder(folder)) => rows.push(row("option", "user", folder.user.clone())),
        Some(Operation::Copy(_)) | None => {}
    }
    for (origin, reading) in reads {
        rows.extend(files(origin, reading, &inputs.files));
    }
    rows.truncate(MAX_ROWS);
    rows
}

fn files(origin: &Origin, reading: &Reading, counted: &[FileInput]) -> Vec<proto::KeyInput> {
    match origin {
        Origin::Layers(layers) => vec![row("image", &reading.paths.join(" "), chain(layers))],
        Origin::Inline(files) => files.iter().map(|file| row("file", &file.name, short(&file.content))).collect(),
        Origin::Context(_) => {
            counted.iter().map(|file| row("file", &file.name, short(file.digest.as_bytes()))).collect()
        }
        Origin::Tree(_, tree) => {
            let view = View(tree);
            let all: Vec<_> = reading.files_of(&view);
            all.into_iter().map(|(path, digest)| row("file", &path, short(digest.as_bytes()))).collect()
        }
    }
}

fn chain(layers: &[proto::Layer]) -> String {
    let chain: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    short(chain.join(" ").as_bytes())
}

fn short(content: &[u8]) -> String {
    key::digest(content)[..16].to_owned()
}

fn row(kind: &str, name: &str, digest: String) -> proto::KeyInput {
    proto::KeyInput { kind: kind.to_owned(), name: name.to_owned(), digest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_named() {
        let run = |value: &str, proxy: &str| {
            let env = vec![format!("A={value}"), format!("HTTP_PROXY={proxy}")];
            let operation = Operation::Run(proto::RunOperation { env, cwd: "/w".to_owned(), ..Default::default() });
            let definition = proto::StepDefinition { operation: Some(operation), ..Default::default() };
            let uncounted = ["HTTP_PROXY".to_owned()].into();
            of(&definition, "RUN x", &Inputs { files: Vec::new(), uncounted }, &[])
        };
        let (one, other) = (run("1", "p"), run("2", "q"));
        let changed: Vec<&str> =
            one.iter().zip(&other).filter(|(one, other)| one != other).map(|(one, _)| one.name.as_str()).collect();
        assert_eq!(changed, ["A"]);
        assert!(one.iter().all(|row| row.name != "HTTP_PROXY" && !row.digest.contains("A=")));
    }
}
