//! Runs every case on both engines and holds their outputs side by side.
//!
//! With `COMPARE_WITH=dockerd` in the environment a second dockerd stands in for the Boxyard: that proves the
//! cases and the forms, and then nothing may differ.

use std::fmt::Write;

use compare::{Case, cases, differences, missing_paths, normalised};
use kit::{Engine, Kind};

/// What one step gave on one engine.
struct Seen {
    stdout: String,
    stderr: String,
    code: i32,
    json: Option<serde_json::Value>,
}

fn run(engine: &Engine, step: &str) -> Seen {
    if let Some(request) = step.strip_prefix("api ") {
        let (method, path) = request.split_once(' ').expect("api METHOD PATH");
        let answer = engine.api(method, path, "");
        return Seen {
            stdout: String::new(),
            stderr: String::new(),
            code: i32::from(answer.status),
            json: Some(answer.json()),
        };
    }
    let output = engine.shell(step);
    // Only the socket's own path may differ in what the client says.
    let own = engine.work_dir().to_string_lossy().into_owned();
    let clean = |text: &str| normalised(&text.replace(&own, "<folder>"));
    Seen { stdout: clean(&output.stdout), stderr: clean(&output.stderr), code: output.code, json: None }
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

fn run_case(docker: &Engine, ours: &Engine, case: &Case) -> Vec<(String, Option<String>)> {
    // Each case begins with busybox and nothing else. A parent goes only after its children, which `images` does not
    // always name first: several turns.
    for engine in [docker, ours] {
        engine.shell(
            "docker rm -f $(docker ps -aq); rm -rf ./*
             for turn in 1 2 3 4 5; do docker rmi -f $(docker images -aq) || docker image prune -f; done",
        );
        assert_eq!(engine.docker(&["images", "-aq"]).ok(), "", "nothing is left of the case before");
        engine.load_busybox();
    }
    let steps = case.steps.iter();
    steps.map(|step| (step.clone(), compare(&run(docker, step), &run(ours, step)))).collect()
}

#[test]
fn every_command_on_both_sides() {
    let with_dockerd = std::env::var("COMPARE_WITH").is_ok_and(|value| value == "dockerd");
    let docker = Engine::start(Kind::Dockerd);
    let ours = Engine::start(if with_dockerd { Kind::Dockerd } else { Kind::Boxyard });
    let known = if with_dockerd { Vec::new() } else { differences() };
    let mut used = vec![false; known.len()];
    let (mut faults, mut steps) = (Vec::new(), 0);
    for case in cases() {
        for (step, difference) in run_case(&docker, &ours, &case) {
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
    docker.stop();
    ours.stop();
}

#[test]
fn every_difference_is_explained() {
    let cases = cases();
    for row in differences() {
        let case = cases.iter().find(|case| case.name == row.case);
        assert!(case.is_some_and(|case| case.steps.contains(&row.step)), "no such step: {row:?}");
        assert!(row.why.len() > 20, "not explained: {row:?}");
    }
}
