//! `build shell`, and the shell of `build --on-error=shell`: a container in which a step can be looked at.

use std::io::{IsTerminal as _, stdin, stdout};

use clap::Args;
use serde_json::Value;

use crate::commands::run::{Attached, start_code};
use crate::create::options::Streams;
use crate::engine::{Engine, escape};
use crate::failure::{Failure, Outcome};

#[derive(Args, Debug)]
pub struct Shell {
    /// The build, and a step of it: its number, or how its digest begins (Default is the step that failed, else the last one)
    #[arg(value_name = "BUILD[@STEP]")]
    build: String,
    /// What to run instead of the stage's shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Shell {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let (build, step) = match self.build.split_once('@') {
            Some((build, step)) => (build, Some(step)),
            None => (self.build.as_str(), None),
        };
        open(engine, build, step, &self.command).await
    }
}

/// Opens it, and fails with its exit code.
pub async fn open(engine: &Engine, build: &str, step: Option<&str>, command: &[String]) -> Outcome {
    let tty = is_terminal();
    let path = format!("/boxyard/v1/builds/{}/shell", escape(build));
    let call = engine.post(path).maybe("step", step).flag("tty", tty).flag("stdin", true);
    let call = command.iter().fold(call, |call, word| call.query("command", word));
    let made = call.value().await?;
    // Who runs a command wants its output alone.
    if command.is_empty() {
        eprint!("{}", greeting(&made));
    }
    let streams = Streams { stdin: true, stdout: true, stderr: true };
    let attached = Attached { streams, tty, is_removed: true, detach_keys: None, proxies_signals: !tty };
    let ended = attached.run(engine, made["container_id"].as_str().unwrap_or_default()).await;
    ended.map_err(|failure| match failure.status {
        Some(_) => Failure { code: start_code(&failure.message), ..failure },
        None => failure,
    })
}

/// A shell has somebody to talk to.
pub fn is_terminal() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

fn greeting(made: &Value) -> String {
    let state = if made["left"] == true { "as its failed command left it" } else { "as it saw it" };
    let name = made["name"].as_str().unwrap_or_default().replace('\n', " ");
    let mut text = format!("step {} {state}: {name}\n", made["number"]);
    let missing: Vec<&str> = made["missing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !missing.is_empty() {
        text += &format!("not mounted: {}\n", missing.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_of_a_shell() {
        let made = json!({"number": 3, "name": "[2/2] RUN a", "left": true, "missing": []});
        assert_eq!(greeting(&made), "step 3 as its failed command left it: [2/2] RUN a\n");
        let made = json!({"number": 3, "name": "[2/2] RUN a", "left": false, "missing": ["secret a", "bind /b"]});
        assert_eq!(greeting(&made), "step 3 as it saw it: [2/2] RUN a\nnot mounted: secret a, bind /b\n");
    }
}
