//! The build farm: stages that run at once, steps that many builds share.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use kit::farm::{Build, Farm};
use kit::{Boxyard, Options, wait_until};

const MIB: u64 = 1 << 20;

/// A Boxyard with busybox, and one worker: what happens among the stages of one build does so within its worker.
fn alone() -> Boxyard {
    let boxyard = Boxyard::start(Options::default());
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    boxyard
}

/// Answers so many callers only when all of them have called; the port, and who has.
fn meeting(callers: usize) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("the address").port();
    let met = thread::spawn(move || {
        let mut lines: Vec<(String, TcpStream)> = (0..callers)
            .map(|_| {
                let (stream, _) = listener.accept().expect("a caller");
                let mut said = String::new();
                BufReader::new(&stream).read_line(&mut said).expect("a line");
                (said.trim().to_owned(), stream)
            })
            .collect();
        lines.iter_mut().for_each(|(_, stream)| stream.write_all(b"all are here\n").expect("answer"));
        let mut names: Vec<String> = lines.into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    });
    (port, met)
}

#[test]
fn stages_that_do_not_need_each_other_run_at_once() {
    let boxyard = alone();
    let (port, met) = meeting(2);
    let call = |name: &str| format!("RUN echo {name} | timeout 60 nc 127.0.0.1 {port} > /{name} && cat /{name}\n");
    let stages = format!(
        "FROM busybox AS one\n{}FROM busybox\n{}COPY --from=one /one /\nRUN echo from one && cat /one\n",
        call("one"),
        call("two"),
    );
    let built = boxyard.feed(&["build", "--network", "host", "-t", "both", "-"], stages.as_bytes());
    built.says("Successfully tagged both:latest").says("from one\nall are here");
    assert_eq!(met.join().expect("they met"), ["one", "two"]);
    let steps: Vec<&str> = built.lines().into_iter().filter_map(|line| line.strip_prefix("Step ")).collect();
    let steps: Vec<&str> = steps.iter().map(|line| &line[..3]).collect();
    assert_eq!(steps, ["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"], "{built}");
    let place = |text: &str| built.stdout.find(text).unwrap_or_else(|| panic!("{text}: {built}"));
    assert!(place("all are here\n") < place("Step 3/6"), "each stage has its place in the output: {built}");

    // The first stage that fails, in the order of the file, is the build's failure, and ends the others.
    let stages = "FROM busybox\nRUN sleep 1; exit 3\nFROM busybox\nRUN exit 4\nFROM busybox\nRUN sleep 600\n";
    let failed = boxyard.feed(&["build", "-"], stages.as_bytes());
    failed.fails(3, "returned a non-zero code: 3");
    assert!(!failed.stdout.contains("Step 3/6"), "{failed}");
    boxyard.stop();
}

/// The container that a build names for a step.
fn container<'a>(said: &'a str, step: &str) -> &'a str {
    let before = said.split(&format!("\n{step} began")).next().expect("there is always a first part");
    before.rsplit(" ---> Running in ").next().expect("there is always a last part").trim()
}

#[test]
fn eight_builds_on_four_workers_run_each_step_once() {
    let farm = Farm::start(4);
    let bell = farm.bell();
    let (base, before) = (farm.bytes_of("busybox"), farm.received());
    let dockerfile = format!("FROM busybox\nENV A=b\n{}{}CMD [\"true\"]\n", bell.step("one"), bell.step("two"));
    let names: Vec<String> = (0..8).map(|number| format!("b{number}")).collect();
    let builds: Vec<Build> = names.iter().map(|name| farm.classic(name, &dockerfile, &[])).collect();
    // All of them see what is printed while the step runs.
    builds.iter().for_each(|build| build.until_said("one began"));
    bell.answer();
    let built: Vec<(String, String)> = builds.into_iter().map(Build::built).collect();
    let (id, said) = &built[0];
    for (other_id, other) in &built {
        assert_eq!(other_id, id, "{other}");
        assert_eq!(container(other, "one"), container(said, "one"), "{other}");
        assert!(other.contains("one ended\n ---> Removed intermediate container"), "{other}");
    }
    assert_eq!((bell.count("one"), bell.count("two")), (1, 1));
    let listed = farm.cluster.docker(&["images", "-aq"]);
    let images: BTreeSet<&str> = listed.lines().into_iter().collect();
    assert_eq!(images.len(), 5, "busybox and one image for each step: {listed}");

    // Each worker had two of the builds; a step ran for one of all, on that one's worker, and was found by the others.
    let had: BTreeSet<String> = names.iter().map(|name| farm.worker_of(name)).collect();
    assert_eq!(had.len(), 4, "{had:?}");
    let ran_on = |step: &str| -> Vec<String> { names.iter().flat_map(|name| farm.ran_on(name, step)).collect() };
    let (one, two) = (ran_on("RUN echo one"), ran_on("RUN echo two"));
    assert_eq!((one.len(), two.len()), (1, 1), "{one:?} {two:?}");
    // The base came to those who ran a step, once, and nothing to those who only followed.
    for (worker, now) in farm.received() {
        let moved = now - before[&worker];
        let needed = if one.contains(&worker) || two.contains(&worker) { base + base / 8 } else { 0 };
        assert!(moved < needed + MIB / 2, "{moved} bytes moved to worker {worker}, of a base of {base}");
        assert!(moved >= needed / 8, "{moved} bytes moved to worker {worker}, which ran a step on a base of {base}");
    }
    farm.stop();
}

#[test]
fn a_step_that_others_follow() {
    let farm = Farm::start(2);
    let bell = farm.bell();
    let began = |build: Build, text: &str| {
        build.until_said(text);
        build
    };

    // The client that had it leaves; the other one, on the other worker, gets the step's result.
    let dockerfile = format!("FROM busybox\n{}", bell.step("left"));
    let mut leaves = began(farm.classic("leaves", &dockerfile, &[]), "left began");
    let worker = farm.worker_of("leaves");
    let stays = farm.elsewhere(&worker, || began(farm.classic("stays", &dockerfile, &[]), "left began"));
    leaves.child.kill().and_then(|()| leaves.child.wait()).expect("killed");
    let state = || farm.build_of("leaves")["state"].clone();
    wait_until("the build to be cancelled", 30, || (state() == "cancelled").then_some(()));
    bell.answer();
    let (_, said) = stays.built();
    assert!(said.contains("left ended"), "{said}");
    assert_eq!((bell.count("left"), container(&said, "left")), (1, container(&leaves.said(), "left")));
    assert_ne!(farm.worker_of("stays"), worker);
    assert_eq!(farm.ran_on("leaves", "RUN"), [worker]);
    assert_eq!(farm.ran_on("stays", "RUN"), [] as [&str; 0]);

    // Without the cache a build does not follow, and its result is the one that counts from then on.
    bell.hold();
    let dockerfile = format!("FROM busybox\n{}", bell.step("anew"));
    let first = began(farm.classic("first", &dockerfile, &[]), "anew began");
    let worker = farm.worker_of("first");
    let anew = farm.elsewhere(&worker, || {
        let anew = farm.classic("anew", &dockerfile, &["--no-cache"]);
        wait_until("both to run", 60, || (bell.count("anew") == 2).then_some(()));
        anew
    });
    bell.answer();
    let (first, anew) = (first.built().0, anew.built().0);
    assert_ne!(first, anew);
    assert!([first, anew].contains(&farm.classic("found", &dockerfile, &[]).built().0));
    assert_eq!(farm.ran_on("first", "RUN"), [worker.as_str()]);
    assert_eq!(farm.ran_on("anew", "RUN"), [farm.worker_of("anew")]);
    assert_ne!(farm.worker_of("anew"), worker);
    assert_eq!(farm.ran_on("found", "RUN"), [] as [&str; 0]);

    // A command that fails fails for all who followed it, and runs again for who comes later.
    bell.hold();
    let dockerfile = format!("FROM busybox\n{}", bell.step("fails").replace("echo fails ended", "exit 7"));
    let one = began(farm.classic("fails-1", &dockerfile, &[]), "fails began");
    let worker = farm.worker_of("fails-1");
    let other = farm.elsewhere(&worker, || began(farm.classic("fails-2", &dockerfile, &[]), "fails began"));
    bell.answer();
    for (code, said) in [one.end(), other.end()] {
        assert!(code == 7 && said.contains("returned a non-zero code: 7"), "{said}");
    }
    assert_eq!(bell.count("fails"), 1);
    assert_eq!(farm.classic("fails-3", &dockerfile, &[]).end().0, 7);
    assert_eq!(bell.count("fails"), 2);
    farm.stop();
}

#[test]
fn the_same_step_in_two_stages_of_a_build_is_found_by_the_later_one() {
    let boxyard = alone();
    let stages = "FROM busybox\nRUN echo once; sleep 1\nFROM busybox\nRUN echo once; sleep 1\n";
    let built = boxyard.feed(&["build", "-"], stages.as_bytes());
    let (first, second) = built.ok().split_once("Step 3/4").expect("two stages");
    assert!(first.contains("once\n ---> Removed intermediate container") && !first.contains("Using cache"), "{built}");
    assert!(second.contains(" ---> Using cache") && !second.contains("Running in"), "{built}");
    boxyard.stop();
}
