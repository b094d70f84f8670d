//! What is remembered of builds, and what can be done to one by its id.

use std::fs;

use kit::{Boxyard, Client, Options, wait_until};

fn started() -> Boxyard {
    let boxyard = Boxyard::start(Options::default());
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    boxyard
}

/// Id of the newest build.
fn newest(boxyard: &Boxyard) -> String {
    boxyard.boxyard(&["build", "ls", "-q", "--no-trunc", "-n", "1"]).ok().to_owned()
}

/// The steps of a build, once so many are known: name, line, whether it was found, exit code.
fn steps(boxyard: &Boxyard, id: &str, count: usize) -> Vec<(String, u64, bool, i64)> {
    let client = Client::new(boxyard.socket());
    wait_until("the build's steps", 30, || {
        let told = client.get_json(&format!("/boxyard/v1/builds/{id}/steps"));
        let step = |step: &serde_json::Value| {
            let name = step["name"].as_str().expect("a name").to_owned();
            let cached = step["cached"].as_bool().expect("said of every step");
            assert!(step["started_at"].is_string() && (cached || step["worker_id"].is_string()), "{step}");
            (name, step["line"].as_u64().unwrap_or(0), cached, step["code"].as_i64().unwrap_or(0))
        };
        let steps: Vec<_> = told["items"].as_array().expect("steps").iter().map(step).collect();
        (steps.len() == count).then_some(steps)
    })
}

#[test]
fn a_build_is_remembered_with_its_steps_its_log_and_its_reasons() {
    let mut boxyard = started();
    let context = boxyard.work_dir().join("context");
    fs::create_dir(&context).expect("a folder");
    let write = |name: &str, text: &str| fs::write(context.join(name), text).expect("written");
    write("a.txt", "one");
    write("b.txt", "one");
    write("Dockerfile", "FROM busybox\nARG V=1\nRUN echo built $V\nCOPY a.txt b.txt /\nRUN cat /a.txt\n");
    let path = context.to_str().expect("a path").to_owned();
    let build = |more: &[&str]| boxyard.docker(&[&["build", "-t", "hist"], more, &[&path]].concat());
    let first = build(&[]);
    first.says("Successfully tagged hist:latest");
    let id = newest(&boxyard);
    let ran = |name: &str, line: u64| (name.to_owned(), line, false, 0);
    let wanted = [
        ran("[1/5] FROM busybox", 1),
        ran("[2/5] ARG V=1", 2),
        ran("[3/5] RUN echo built $V", 3),
        ran("[4/5] COPY a.txt b.txt /", 4),
        ran("[5/5] RUN cat /a.txt", 5),
    ];
    assert_eq!(steps(&boxyard, &id, 5), wanted);
    let shown =
        boxyard.boxyard(&["build", "inspect", "-f", "{{.state}} {{.builder}} {{index .tags 0}} {{.attempt}}", &id]);
    assert_eq!(shown.ok(), "done classic hist:latest 1");
    boxyard.boxyard(&["build", "ls"]).says("BUILD ID").says("hist:latest").says(&id[..12]);
    let listed = |filters: &[&str]| {
        let filters = filters.iter().flat_map(|filter| ["--filter", filter]);
        boxyard.boxyard(&["build", "ls", "-q", "--no-trunc"].into_iter().chain(filters).collect::<Vec<_>>())
    };
    for (filters, found) in [
        (&["status=done", "tag=hist"][..], id.as_str()),
        (&["status=failed", "status=done", "builder=classic", "since=1h"], &id),
        (&["status=failed"], ""),
        (&["worker=nobody"], ""),
        (&["until=1h"], ""),
    ] {
        assert_eq!(listed(filters).ok(), found, "{filters:?}");
    }
    listed(&["status=over"]).fails(1, "invalid filter 'status=over'");
    listed(&["colour=red"]).fails(1, "invalid filter 'colour'");
    let logged = boxyard.boxyard(&["build", "logs", &id[..12]]);
    logged
        .says("Step 3/5 : RUN echo built $V")
        .says("built 1")
        .says("Successfully built")
        .says("Successfully tagged hist:latest");

    // What changed is named, and only that.
    build(&["--build-arg", "V=2"]).says("built 2");
    let explained = explain(&boxyard, &newest(&boxyard), 5);
    assert!(explained.contains(&format!("compared with build {}", &id[..12])), "{explained}");
    assert!(explained.contains("RUN echo built $V: ran on"), "{explained}");
    assert!(explained.contains("    build argument V changed\n"), "{explained}");
    write("b.txt", "two");
    build(&["--build-arg", "V=2"]).says("Using cache");
    let explained = explain(&boxyard, &newest(&boxyard), 5);
    assert!(explained.contains("    file b.txt changed\n") && !explained.contains("a.txt changed"), "{explained}");
    assert!(!explained.contains("build argument"), "{explained}");
    assert!(explained.contains("parent [4/5] COPY a.txt b.txt / changed"), "{explained}");

    // A failed build is remembered too.
    let failed = boxyard.feed(&["build", "-"], b"FROM busybox\nRUN echo it breaks; exit 7\n");
    failed.fails(7, "returned a non-zero code: 7");
    let broken = newest(&boxyard);
    let told = steps(&boxyard, &broken, 2);
    assert_eq!(told[1].3, 7, "{told:?}");
    let logged = boxyard.boxyard(&["build", "attach", &broken]);
    logged.fails(7, "returned a non-zero code: 7");
    assert!(logged.stdout.contains("it breaks"), "{logged}");

    // All of it outlives a restart of everything.
    boxyard.down();
    boxyard.up();
    assert_eq!(boxyard.boxyard(&["build", "logs", &broken]).stdout, logged.stdout);
    assert_eq!(steps(&boxyard, &id, 5).len(), 5);
    boxyard.boxyard(&["build", "rm", &broken]).says(&broken);
    boxyard.boxyard(&["build", "logs", &broken]).fails(1, "no such build");
    boxyard.boxyard(&["build", "rm", "nosuch", ""]).fails(1, "no such build: nosuch");
    boxyard.stop();
}

fn explain(boxyard: &Boxyard, id: &str, count: usize) -> String {
    steps(boxyard, id, count);
    boxyard.boxyard(&["build", "explain", id]).ok().to_owned() + "\n"
}

#[test]
fn a_build_of_any_client_is_followed_and_cancelled_by_its_id() {
    let boxyard = started();
    let context = boxyard.work_dir().join("context");
    fs::create_dir(&context).expect("a folder");
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN echo it began; sleep 36001\n").expect("written");
    let output = boxyard.work_dir().join("output");
    let mut client = boxyard.spawn_docker(&["build", "-t", "long", context.to_str().expect("a path")], &output);
    let id = wait_until("the build to run", 60, || {
        let id = newest(&boxyard);
        let log = boxyard.boxyard(&["build", "logs", &id]);
        log.stdout.contains("it began").then_some(id)
    });
    assert_eq!(steps(&boxyard, &id, 2).len(), 2, "the steps of a build that is not over");
    boxyard.boxyard(&["build", "rm", &id]).fails(1, "is not over");
    let began = std::time::Instant::now();
    boxyard.boxyard(&["build", "cancel", &id[..12]]).says(&id[..12]);
    assert!(!client.wait().expect("it ends").success());
    let said = fs::read_to_string(&output).expect("its output");
    assert!(said.contains("the build was cancelled"), "{said}");
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    wait_until("its processes to end", 2, || kit::processes_naming("sleep 36001").is_empty().then_some(()));
    let state = boxyard.boxyard(&["build", "inspect", "-f", "{{.state}}", &id]);
    assert_eq!(state.ok(), "cancelled");
    boxyard.boxyard(&["build", "cancel", &id]).fails(1, "is over: it is cancelled");
    boxyard.boxyard(&["build", "attach", &id]).fails(1, "the build was cancelled");
    boxyard.stop();
}
