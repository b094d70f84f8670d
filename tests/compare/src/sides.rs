//! Runs cases on both engines and holds their outputs side by side.

use std::fmt::Write;

use kit::{Engine, Kind};

use crate::form::normalised;
use crate::shape::missing_paths;
use crate::{Case, Difference, Ids, differences};

/// What one step gave on one engine.
struct Seen {
    stdout: String,
    stderr: String,
    code: i32,
    json: Option<serde_json::Value>,
}

/// Debian 13's dockerd (26.1, API 1.45) and a Boxyard, both with the docker command of that release. With `COMPARE_WITH=dockerd` in the environment a second dockerd stands in for the Boxyard:
/// that proves the cases and the forms, and then nothing may differ.
pub struct Sides {
    docker: Engine,
    ours: Engine,
    /// Names that steps use as variables of the shell, and what they stand for.
    variables: Vec<(&'static str, String)>,
}

impl Sides {
    /// Starts both with these flags.
    pub fn start(flags: &[&str]) -> Self {
        let docker = Engine::start_with(Kind::Docker26, flags);
        let ours = Engine::start_with(if with_dockerd() { Kind::Docker26 } else { Kind::Boxyard }, flags);
        Self { docker, ours, variables: Vec::new() }
    }

    pub fn set(&mut self, name: &'static str, value: String) {
        self.variables.push((name, value));
    }

    /// Runs the cases, stops both, and panics with all that differs and is not listed, or is listed and does not.
    pub fn hold(self, cases: &[Case]) {
        let concerns = |row: &Difference| cases.iter().any(|case| case.name == row.case);
        let known: Vec<_> = differences().into_iter().filter(|row| !with_dockerd() && concerns(row)).collect();
        let mut used = vec![false; known.len()];
        let (mut faults, mut steps) = (Vec::new(), 0);
        for case in cases {
            for (step, difference) in self.run_case(case) {
                steps += 1;
                let listed = known.iter().position(|row| row.case == case.name && row.step == step);
                match (listed, difference) {
                    (None, Some(difference)) => faults.push(format!("{}: $ {step}\n{difference}", case.name)),
                    (Some(row), Some(_)) => used[row] = true,
                    (_, None) => {}
                }
            }
        }
        for (row, _) in known.iter().zip(used).filter(|(_, used)| !used) {
            faults.push(format!("{}: $ {}\n  is listed as different, and no longer is", row.case, row.step));
        }
        assert!(faults.is_empty(), "{} of {steps} steps differ:\n\n{}", faults.len(), faults.join("\n"));
        self.docker.stop();
        self.ours.stop();
    }

    fn run_case(&self, case: &Case) -> Vec<(String, Option<String>)> {
        // Each case begins with busybox and nothing else. A parent goes only after its children, which `images` does
        // not always name first: several turns.
        for engine in [&self.docker, &self.ours] {
            engine.shell(
                "docker rm -f $(docker ps -aq); rm -rf ./*
                 for turn in 1 2 3 4 5; do docker rmi -f $(docker images -aq) || docker image prune -f; done",
            );
            assert_eq!(engine.docker(&["images", "-aq"]).ok(), "", "nothing is left of the case before");
            engine.load_busybox();
        }
        let both = |step: &String| {
            let seen = std::thread::scope(|scope| {
                let theirs = scope.spawn(|| self.run(&self.docker, "of-one", step, case.ids));
                let own = self.run(&self.ours, "of-two", step, case.ids);
                theirs.join().map(|theirs| (theirs, own))
            });
            // A step that hung has said so already.
            let (theirs, own) = seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            compare(&theirs, &own)
        };
        case.steps.iter().map(|step| (step.clone(), both(step))).collect()
    }

    fn run(&self, engine: &Engine, own: &str, step: &str, ids: Ids) -> Seen {
        if let Some(request) = step.strip_prefix("api ") {
            let filled = self
                .variables
                .iter()
                .fold(request.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value));
            let mut parts = filled.splitn(3, ' ');
            let mut part = || parts.next().unwrap_or_default();
            let answer = engine.api(part(), part(), part());
            let json = answer.json();
            // Of an error the words count, of all else the shape.
            let message = json["message"].as_str().filter(|_| answer.status >= 400).unwrap_or_default();
            return Seen {
                stdout: normalised(message, ids),
                stderr: String::new(),
                code: i32::from(answer.status),
                json: Some(json),
            };
        }
        let mut line = format!("export DOCKER_BUILDKIT=0; OWN={own}; ");
        for (name, value) in &self.variables {
            let _ = write!(line, "{name}='{value}'; ");
        }
        let output = engine.shell26(&(line + step));
        // Only the folder's own path may differ in what the client says, and where the engine itself pushes to.
        let folder = engine.work_dir().parent().expect("it lies in the engine's folder").to_string_lossy().into_owned();
        let clean = |text: &str| normalised(&text.replace(&folder, "<folder>").replace(own, "<own>"), ids);
        Seen { stdout: clean(&output.stdout), stderr: clean(&output.stderr), code: output.code, json: None }
    }
}

pub fn with_dockerd() -> bool {
    std::env::var("COMPARE_WITH").is_ok_and(|value| value == "dockerd")
}

fn compare(docker: &Seen, ours: &Seen) -> Option<String> {
    let mut text = String::new();
    if docker.code != ours.code {
        let _ = writeln!(text, "  code: docker {}, here {}", docker.code, ours.code);
    }
    for (name, theirs, own) in [("stdout", &docker.stdout, &ours.stdout), ("stderr", &docker.stderr, &ours.stderr)] {
        if theirs != own {
            let _ = writeln!(text, "  {name} at docker:\n{}\n  {name} here:\n{}", indent(theirs), indent(own));
        }
    }
    if let (Some(theirs), Some(own)) = (&docker.json, &ours.json) {
        for path in missing_paths(theirs, own) {
            let _ = writeln!(text, "  {path}");
        }
    }
    (!text.is_empty()).then_some(text)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
