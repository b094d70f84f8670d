//! `POST /boxyard/v1/builds/{id}/shell`: a container in which a step can be looked at.

use std::sync::Arc;

use axum::extract::{Path, State};

use super::api::{About, Api, Parameter, ParameterKind};
use super::builds::ID;
use super::{JSON, sent};
use crate::app::App;
use crate::app::step_shell::{ShellRequest, StepShell};
use crate::http::answer::Answer;
use crate::http::query::Query;

const ABOUT: About = About {
    summary: "Makes a container on the file system of a step, with the step's variables, user, working directory and network: \
              of a failed step as its command left it where that is still held, else as the step saw it.",
    parameters: &[
        ID,
        Parameter {
            name: "step",
            about: "Number of the step, or how its digest begins; absent: the step that failed, else the last one.",
            kind: ParameterKind::Text,
        },
        Parameter {
            name: "command",
            about: "A word of the command to run; absent: the shell of the step's stage.",
            kind: ParameterKind::Texts,
        },
        Parameter { name: "tty", about: "Give it a terminal.", kind: ParameterKind::Flag },
        Parameter { name: "stdin", about: "Let it read what is attached.", kind: ParameterKind::Flag },
    ],
    content_type: JSON,
    refusals: &[400, 404, 503],
};

/// Adds the route to the table.
pub fn add_to(api: Api) -> Api {
    api.answered::<StepShell, _, _>("/boxyard/v1/builds/{id}/shell", &ABOUT, open)
}

async fn open(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let request = ShellRequest {
        step: query.maybe("step").filter(|step| !step.is_empty()).map(str::to_owned),
        command: query.all("command"),
        tty: query.flag("tty"),
        stdin: query.flag("stdin"),
    };
    sent(&app.step_shell(&id, &request).await?)
}
