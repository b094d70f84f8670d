//! A worker that speaks for a build that it does not have, or writes nonsense into a build's log.

use std::collections::BTreeMap;

use e2e::session::start_with;
use kit::farm::{Bell, Build};
use kit::{Boxyard, BusUser, Client, Fields, Options, wait_until};
use serde_json::Value;

/// The build that runs: its id, and the worker that has it.
fn running(boxyard: &Boxyard) -> (String, String) {
    wait_until("a worker to have the build", 60, || {
        let builds = Client::new(boxyard.socket()).get_json("/boxyard/v1/builds");
        let build = builds["items"].as_array()?.iter().find(|build| build["state"] == "running").cloned()?;
        let text = |key: &str| build[key].as_str().map(str::to_owned);
        Some((text("id")?, text("worker_id")?))
    })
}

fn workers(boxyard: &Boxyard) -> Vec<String> {
    let listed: Value = Client::new(boxyard.socket()).get_json("/boxyard/v1/workers");
    let items = listed["items"].as_array().expect("workers");
    items.iter().map(|worker| worker["id"].as_str().expect("an id").to_owned()).collect()
}

/// What a worker may be asked to believe about a build, by the call that says it.
fn claims(build: &str) -> BTreeMap<&'static str, Vec<u8>> {
    let of_build = || Fields::default().bytes(1, build.as_bytes()).number(2, 1);
    BTreeMap::from([
        ("BuildRenew", of_build().end()),
        ("StepResult", of_build().bytes(3, b"k").bytes(4, &Fields::default().bytes(1, b"sha256:1").end()).end()),
        ("StepContainer", of_build().bytes(3, b"n").bytes(4, b"c").bytes(5, b"busybox").end()),
        ("ResultPut", of_build().bytes(3, &Fields::default().bytes(1, b"k").end()).end()),
        ("BuildFinish", of_build().bytes(4, b"because").end()),
        ("ImageResolve", Fields::default().bytes(1, b"busybox").bytes(2, build.as_bytes()).number(6, 1).end()),
        ("StepLookup", Fields::default().bytes(1, b"k").bytes(4, build.as_bytes()).number(5, 1).end()),
    ])
}

#[test]
fn only_who_has_a_build_speaks_for_it() {
    let (boxyard, _) = start_with(Options { workers: 2, ..Options::default() });
    let bell = Bell::new();
    let build = Build::start_as(&boxyard, 0, "one", &format!("FROM busybox\n{}", bell.step("held")), &[]);
    wait_until("the step to run", 90, || (bell.count("held") > 0).then_some(()));
    let (id, holder) = running(&boxyard);
    let other = workers(&boxyard).into_iter().find(|worker| *worker != holder).expect("another worker");
    let mut other = BusUser::connect(&boxyard, &format!("worker-{other}"));
    for (call, request) in claims(&id) {
        let answer = other.call(&format!("rpc.gateway.{call}"), &request);
        let (kind, why) = answer.expect_err(call);
        assert_eq!(kind, "denied", "{call}: {why}");
    }
    // The same words are right where they come from the worker that has it.
    let mut holder = BusUser::connect(&boxyard, &format!("worker-{holder}"));
    for call in ["BuildRenew", "ImageResolve", "StepLookup"] {
        holder.call(&format!("rpc.gateway.{call}"), &claims(&id)[call]).expect(call);
    }
    // What is no chunk of a log ends no build, whoever writes it.
    for (worker, name) in [(&mut other, "the other"), (&mut holder, "the holder")] {
        let user = worker.user().to_owned();
        worker.publish(&format!("buildlog.{id}.{user}"), b"\xff\xff no chunk");
        assert!(!build.said().contains("malformed"), "{name}: {}", build.said());
    }
    bell.answer();
    let said = build.done();
    assert!(said.contains("held ended") && !said.contains("malformed"), "{said}");
    wait_until("the build's end to be recorded", 30, || {
        boxyard.boxyard(&["build", "logs", &id]).stdout.contains("held ended").then_some(())
    });
    boxyard.stop();
}
