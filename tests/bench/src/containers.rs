//! Containers through the API: one after another, many at once, and exec in a running one.

use std::sync::atomic::{AtomicUsize, Ordering};

use kit::Client;

use crate::pair::{Goal, Pair, Report};

pub fn measure(pair: &Pair, report: &mut Report) {
    for (name, network, goal) in
        [("run true, bridge", "bridge", Goal::Faster(5.0)), ("run true, host network", "host", Goal::None)]
    {
        if report.wants(name) {
            let values = pair.medians(30, |_, side| once(&side.api(), network));
            report.row(name, values, "ms", goal);
        }
    }
    let name = "100 runs, 8 at once, each";
    if report.wants(name) {
        let values = pair.medians(2, |_, side| hundred(&side.api()));
        report.row(name, values.map(|seconds| seconds / 100.0), "ms", Goal::None);
    }
    let name = "exec true";
    if report.wants(name) {
        for side in &pair.sides {
            side.docker(&["run", "-d", "--name", "host", "busybox", "sleep", "10000"]).ok();
        }
        let values = pair.medians(30, |_, side| exec(&side.api()));
        report.row(name, values, "ms", Goal::None);
        for side in &pair.sides {
            side.docker(&["rm", "-f", "host"]).ok();
        }
    }
}

/// One request that must be answered with this status.
fn ask(api: &Client, method: &str, path: &str, body: &str, status: u16) -> kit::Answer {
    let answer = api.send(method, path, "application/json", body.to_owned()).expect("the engine answers");
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    answer
}

/// create, start, wait, remove.
fn once(api: &Client, network: &str) {
    let body = format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{"NetworkMode":"{network}"}}}}"#);
    let created = ask(api, "POST", "/v1.41/containers/create", &body, 201).json();
    let id = created["Id"].as_str().expect("an id");
    ask(api, "POST", &format!("/v1.41/containers/{id}/start"), "", 204);
    let waited = ask(api, "POST", &format!("/v1.41/containers/{id}/wait"), "", 200).json();
    assert_eq!(waited["StatusCode"], 0);
    ask(api, "DELETE", &format!("/v1.41/containers/{id}"), "", 204);
}

fn hundred(api: &Client) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < 100 {
                    once(api, "bridge");
                }
            });
        }
    });
}

fn exec(api: &Client) {
    let created =
        ask(api, "POST", "/v1.41/containers/host/exec", r#"{"Cmd":["true"],"AttachStdout":true}"#, 201).json();
    let id = created["Id"].as_str().expect("an id");
    // The answer's body ends when the command has ended.
    ask(api, "POST", &format!("/v1.41/exec/{id}/start"), r#"{"Detach":false,"Tty":false}"#, 200);
}
