//! Steps of one build on several workers.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use kit::{Boxyard, Client, Options, wait_until};
use serde_json::Value;

/// Runs a graph build to its end; every line of its answer, and how long it took.
fn build(socket: &Path, options: &str, dockerfile: &str) -> (Vec<Value>, Duration) {
    let mut context = kit::Archive::new();
    let context = context.file("Dockerfile", 0o644, dockerfile.as_bytes()).finish();
    let options: String = options.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let began = Instant::now();
    let path = format!("/boxyard/v1/builds?options={options}");
    let answer = Client::new(socket).send("POST", &path, "application/x-tar", context).expect("an answer");
    let took = began.elapsed();
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect(), took)
}

/// The workers that ran steps whose names hold this text.
fn workers_of(lines: &[Value], text: &str) -> Vec<String> {
    let vertices = lines.iter().filter_map(|line| line["trace"]["vertexes"].as_array()).flatten();
    let ended = vertices.filter(|vertex| vertex["completed"].is_string());
    let of_text = ended.filter(|vertex| vertex["name"].as_str().is_some_and(|name| name.contains(text)));
    of_text.filter_map(|vertex| vertex["worker"].as_str()).map(str::to_owned).collect()
}

fn farm(workers: u32) -> Boxyard {
    let boxyard = Boxyard::start(Options { workers, ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let alive = || Client::new(boxyard.socket()).get_json("/boxyard/v1/workers")["items"].as_array().map(Vec::len);
    wait_until("all workers to be known", 30, || (alive() == Some(workers as usize)).then_some(()));
    boxyard
}

/// Four stages ran on four workers, and what follows a step ran where the step did.
fn are_spread(lines: &[Value]) {
    let all = || lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let workers: Vec<Vec<String>> = (1..=4).map(|stage| workers_of(lines, &format!("[s{stage} "))).collect();
    for ran in &workers {
        assert_eq!(ran.len(), 2, "{}", all());
        assert!(ran.iter().all(|worker| *worker == ran[0]), "{ran:?}: {}", all());
    }
    assert_eq!(workers.iter().flatten().collect::<BTreeSet<_>>().len(), 4, "{workers:?}");
}

#[test]
fn stages_that_do_not_need_each_other_go_to_different_workers() {
    let boxyard = farm(4);
    let socket = boxyard.socket();
    let stage = |n: u32| format!("FROM busybox AS s{n}\nRUN sleep 5; echo {n} > /made{n}\nRUN cat /made{n}\n");
    let copies: String = (1..=4).map(|n| format!("COPY --from=s{n} /made{n} /\n")).collect();
    let stages: String = (1..=4).map(stage).collect();
    let dockerfile = format!("{stages}FROM busybox\n{copies}");
    let (lines, took) = build(socket, r#"{"tags": ["spread"]}"#, &dockerfile);
    boxyard.docker(&["run", "--rm", "spread", "sh", "-c", "cat /made1 /made2 /made3 /made4"]).ok();
    are_spread(&lines);
    // Far less than one after the other; this machine's own pace comes on top of the longest.
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Without the cache it is the same.
    let (lines, _) = build(socket, r#"{"tags": ["spread"], "no_cache": true}"#, &dockerfile);
    are_spread(&lines);
    boxyard.stop();
}

#[test]
fn a_helping_worker_that_is_killed_costs_the_step_that_it_ran() {
    let boxyard = farm(2);
    let socket = boxyard.socket();
    let stages = "FROM busybox AS one\nRUN sleep 8; echo 1 > /made1\nFROM busybox AS two\nRUN sleep 8; echo 2 > /made2\n\
                  FROM busybox\nCOPY --from=one /made1 /\nCOPY --from=two /made2 /\n";
    std::thread::scope(|scope| {
        let building = scope.spawn(|| build(socket, r#"{"tags": ["helped"]}"#, stages));
        let shims = wait_until("both steps to run", 30, || {
            let shims = boxyard.pids_of("boxyard-shim");
            (shims.len() == 2).then_some(shims)
        });
        let builder = Client::new(boxyard.socket()).get_json("/boxyard/v1/builds")["items"][0]["worker_id"].clone();
        let parents: BTreeSet<i32> = shims.iter().map(|shim| parent(*shim)).collect();
        assert_eq!(parents.len(), 2, "each worker runs one of them");
        let id = builder.as_str().expect("an id");
        let helper = parents.into_iter().find(|pid| !command_line(*pid).contains(id)).expect("one helps");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), nix::sys::signal::Signal::SIGKILL).expect("killed");
        let (lines, _) = building.join().expect("it ends");
        assert!(lines.last().is_some_and(|line| line["end"] == true), "{lines:?}");
    });
    boxyard.docker(&["run", "--rm", "helped", "cat", "/made1", "/made2"]).ok();
    assert_eq!(Client::new(boxyard.socket()).get_json("/boxyard/v1/builds")["items"][0]["attempt"], 1);
    boxyard.stop();
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    parent.trim().parse().expect("a number")
}

fn command_line(pid: i32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
}
