//! Build workers that come and go, and what builds may ask of them.

use std::collections::BTreeSet;
use std::thread;

use kit::farm::{Bell, Build, Farm};
use kit::{Boxyard, Client, Options, Output, wait_until};

/// The classic build of one Dockerfile, with more in its query.
fn build(client: &Client, query: &str, dockerfile: &str) -> String {
    let mut context = kit::Archive::new();
    let context = context.file("Dockerfile", 0o644, dockerfile.as_bytes()).finish();
    let answer = client.send("POST", &format!("/build?{query}"), "application/x-tar", context).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// Which worker had the newest build.
fn worker_of_newest(client: &Client) -> String {
    let builds = client.get_json("/boxyard/v1/builds?limit=1");
    builds["items"][0]["worker_id"].as_str().unwrap_or_default().to_owned()
}

fn worker_line(listed: &Output, id: &str) -> String {
    let line = listed.ok().lines().find(|line| line.starts_with(&format!("{id} ")));
    line.unwrap_or_else(|| panic!("no {id} in {listed}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

const SSD: &str = "workerlabels=%7B%22disk%22%3A%22ssd%22%7D";

/// On one machine: `boxyard worker start` and `stop` have its supervisor run one more worker.
#[test]
fn builds_go_to_workers_with_their_labels() {
    let boxyard = Boxyard::start(Options::default());
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let client = || Client::new(boxyard.socket());
    let start = ["worker", "start", "--name", "fast", "--slots", "1", "--label", "disk=ssd", "--label", "zone=a"];
    assert_eq!(boxyard.boxyard(&start).ok().trim(), "fast");
    boxyard.boxyard(&start).fails(1, "there is a build worker fast already");
    let seen = || boxyard.boxyard(&["worker", "ls"]).stdout.contains("fast");
    wait_until("the worker to be listed", 20, || seen().then_some(()));
    let listed = boxyard.boxyard(&["worker", "ls"]);
    let line = worker_line(&listed, "fast");
    assert!(line.starts_with("fast ready linux/") && line.ends_with(" 0/1 0 disk=ssd,zone=a"), "{line}");
    let inspected = boxyard.boxyard(&["worker", "inspect", "--format", "{{.labels.disk}} {{.slots}}", "fast"]);
    assert_eq!(inspected.ok().trim(), "ssd 1");

    assert!(build(&client(), SSD, "FROM busybox\nRUN echo one\n").contains("Successfully built"));
    assert_eq!(worker_of_newest(&client()), "fast");

    // Drained: the build waits, its client is told why, and it begins when the worker is back.
    boxyard.boxyard(&["worker", "drain", "--wait", "fast"]).ok();
    assert!(worker_line(&boxyard.boxyard(&["worker", "ls"]), "fast").starts_with("fast drained"));
    let socket = boxyard.socket().to_owned();
    let waiting = thread::spawn(move || build(&Client::new(&socket), SSD, "FROM busybox\nRUN echo two\n"));
    let state = || client().get_json("/boxyard/v1/builds?limit=1")["items"][0]["state"].clone();
    wait_until("the build to wait", 20, || (state() == "waiting").then_some(()));
    // What has no such wish goes on meanwhile.
    assert!(build(&client(), "", "FROM busybox\nRUN echo three\n").contains("Successfully built"));
    assert_ne!(worker_of_newest(&client()), "fast");
    // A silent build is looked at every five seconds.
    thread::sleep(std::time::Duration::from_secs(8));
    boxyard.boxyard(&["worker", "undrain", "fast"]).ok();
    let said = waiting.join().expect("it ends");
    let why = "Waiting for a build worker: all build workers with the labels disk=ssd are drained: fast";
    assert!(said.contains(why) && said.contains("Successfully built"), "{said}");

    // Labels move to the other worker.
    let ids = boxyard.boxyard(&["worker", "ls", "-q"]);
    let other = ids.lines().into_iter().find(|id| *id != "fast").expect("another worker").to_owned();
    boxyard.boxyard(&["worker", "label", "fast", "disk-"]).ok();
    boxyard.boxyard(&["worker", "label", &other, "disk=ssd", "note=moved"]).ok();
    assert!(worker_line(&boxyard.boxyard(&["worker", "ls"]), &other).ends_with("disk=ssd,note=moved"));
    assert!(build(&client(), SSD, "FROM busybox\nRUN echo four\n").contains("Successfully built"));
    assert_eq!(worker_of_newest(&client()), other);

    boxyard.boxyard(&["worker", "drain", "nobody"]).fails(1, "no such build worker: nobody");
    boxyard.boxyard(&["worker", "inspect", "nobody"]).fails(1, "no such build worker: nobody");
    boxyard.boxyard(&["worker", "label", "fast", "disk"]).fails(1, "is no label");
    boxyard.boxyard(&["worker", "stop", &other]).fails(1, "has started no build worker");
    boxyard.boxyard(&["worker", "stop", "fast"]).ok();
    assert_eq!(boxyard.pids_of("boxyard-build-worker").len(), 1);
    assert!(!boxyard.boxyard(&["status"]).ok().contains("build-worker-fast"));
    // Another one of the name may come.
    boxyard.boxyard(&["worker", "start", "--name", "fast"]).ok();
    boxyard.stop();
}

#[test]
fn a_slot_goes_to_the_highest_priority_then_to_the_user_with_the_fewest_builds() {
    let boxyard = Boxyard::start(Options { worker_slots: Some(2), ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let other = 54_321;
    let (ends, stays, order) = (Bell::new(), Bell::new(), Bell::new());
    order.answer();
    let start = |name: &str, bell: &Bell, user: u32, flags: &[&str]| {
        let dockerfile = format!("FROM busybox\nRUN {}\n", bell.call(name));
        Build::start_as(&boxyard, user, name, &dockerfile, flags)
    };
    // Root has both slots.
    let first = [start("ends", &ends, 0, &[]), start("stays", &stays, 0, &[])];
    wait_until("both to run", 60, || (ends.count("ends") + stays.count("stays") == 2).then_some(()));
    let mut queued = Vec::new();
    for (name, user, flags) in [("of-root", 0, &[][..]), ("of-other", other, &[]), ("urgent", 0, &["--priority", "5"])]
    {
        queued.push(start(name, &order, user, flags));
        let waiting = || {
            let builds = Client::new(boxyard.socket()).get_json("/boxyard/v1/builds");
            let states = builds["items"].as_array().into_iter().flatten().filter(|build| build["state"] == "waiting");
            states.count()
        };
        wait_until("the build to wait", 60, || (waiting() == queued.len()).then_some(()));
    }
    ends.answer();
    queued.into_iter().for_each(|build| drop(build.done()));
    // Root still has one, the other user none.
    assert_eq!(order.callers(), ["urgent", "of-other", "of-root"]);
    stays.answer();
    first.into_iter().for_each(|build| drop(build.done()));
    boxyard.stop();
}

#[test]
fn limits_of_a_build_hold_over_all_its_steps() {
    let boxyard = Boxyard::start(Options::default());
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    // Two stages that hold 40 MB each for five seconds, at the same time.
    let eat = "RUN dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null && sleep 5";
    let stages = format!("FROM busybox AS one\n{eat}\nFROM busybox\n{eat}\nCOPY --from=one /etc/passwd /copied\n");
    let build = |memory: &str| {
        boxyard.feed(&["build", "--no-cache", "--memory", memory, "--memory-swap", memory, "-"], stages.as_bytes())
    };
    // Each of them fits into the limit, both do not.
    let held = build("64m");
    assert!(held.code != 0 && held.stderr.contains("returned a non-zero code"), "{held}");
    build("200m").ok();
    boxyard.stop();
}

#[test]
fn a_build_with_limits_is_not_spread() {
    let farm = Farm::start(2);
    // As above: each of the two fits into the limit, and would have one of its own on another worker.
    let eat = "RUN dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null && sleep 5";
    let stages = format!(
        "FROM busybox AS one\n{eat} && echo 1 > /1\nFROM busybox AS two\n{eat} && echo 2 > /2\nFROM busybox\n\
         COPY --from=one /1 /\nCOPY --from=two /2 /\n"
    );
    let build = |name: &str, memory: &str| farm.build(name, &stages, &["--memory", memory, "--memory-swap", memory]);
    let (code, said) = build("held", "64m").end();
    assert!(code != 0 && said.contains("did not complete successfully"), "{said}");
    let before = farm.received();
    build("fits", "200m").done();
    let workers: Vec<String> = farm.ran_on("fits", "RUN");
    assert_eq!(workers.len(), 2, "{workers:?}");
    let ran: BTreeSet<String> = farm.ran("fits").into_iter().map(|(_, worker)| worker).collect();
    assert_eq!(ran, BTreeSet::from([farm.worker_of("fits")]));
    // So nothing comes to the other one.
    for (worker, now) in farm.received().iter().filter(|(worker, _)| !ran.contains(*worker)) {
        let moved = now - before[worker];
        assert!(moved < 1 << 16, "{moved} bytes moved to worker {worker}, which has no step");
    }
    farm.stop();
}
