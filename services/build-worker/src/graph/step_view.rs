//! What a step saw, as it is remembered for a shell in it. Pure.

use std::collections::BTreeSet;

use prost::Message as _;
use proto::step_definition::Operation;

use super::state::State;
use crate::image;

/// A larger one is not remembered: it would not go into the build's log.
const MAX_BYTES: usize = 128 * 1024;

/// Of a step on `state`; `hidden` names variables that are not to be remembered.
pub fn of(definition: &proto::StepDefinition, state: &State, hidden: &BTreeSet<String>) -> Option<proto::StepView> {
    let shared = proto::StepView {
        // Also of a step that stands on nothing: its author sees the stage.
        layers: state.layers.clone(),
        shell: image::shell(&state.file.config),
        ..proto::StepView::default()
    };
    let view = match definition.operation.as_ref()? {
        Operation::Run(run) => proto::StepView {
            env: run.env.iter().filter(|entry| !hidden.contains(name_of(entry))).cloned().collect(),
            cwd: run.cwd.clone(),
            user: run.user.clone(),
            network: run.network.clone(),
            extra_hosts: run.extra_hosts.clone(),
            mounts: run.mounts.iter().map(|mount| proto::StepMount { from: None, ..mount.clone() }).collect(),
            ..shared
        },
        Operation::Copy(copy) => proto::StepView {
            cwd: copy.cwd.clone(),
            user: state.file.config.user.clone(),
            env: state.scope.environment(),
            ..shared
        },
        // Its folder is what it makes.
        Operation::Folder(folder) => {
            proto::StepView { cwd: "/".to_owned(), user: folder.user.clone(), env: state.scope.environment(), ..shared }
        }
    };
    (view.encoded_len() <= MAX_BYTES).then_some(view)
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use model::Platform;

    use super::*;

    #[test]
    fn a_view_has_no_proxies_and_no_content_of_mounts() {
        let mut state = State::scratch(Platform::host(), None);
        state.layers.push(proto::Layer { diff_id: "sha256:1".to_owned(), ..proto::Layer::default() });
        let mount = proto::StepMount {
            r#type: "bind".to_owned(),
            target: "/m".to_owned(),
            from: Some(proto::StepInput::default()),
            ..proto::StepMount::default()
        };
        let run = proto::RunOperation {
            env: vec!["A=1".to_owned(), "http_proxy=http://me:secret@p".to_owned()],
            mounts: vec![mount],
            cwd: "/w".to_owned(),
            ..proto::RunOperation::default()
        };
        let step = |operation| proto::StepDefinition { operation: Some(operation), ..proto::StepDefinition::default() };
        let hidden = BTreeSet::from(["http_proxy".to_owned()]);
        let view = of(&step(Operation::Run(run)), &state, &hidden).expect("a view");
        assert_eq!((view.env, view.cwd.as_str(), view.layers.len()), (vec!["A=1".to_owned()], "/w", 1));
        assert_eq!((view.mounts[0].target.as_str(), &view.mounts[0].from), ("/m", &None));
        assert_eq!(view.shell, ["/bin/sh", "-c"]);
        let large = proto::RunOperation { env: vec!["A".repeat(MAX_BYTES)], ..proto::RunOperation::default() };
        assert_eq!(of(&step(Operation::Run(large)), &state, &hidden), None);
    }
}
