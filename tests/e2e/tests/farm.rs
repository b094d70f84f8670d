//! The build farm: stages that run at once, steps that many builds share.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use kit::farm::{Bell, Build};
use kit::{Boxyard, Client, Options, wait_until};

/// A Boxyard with busybox and so many workers.
fn farm(workers: u32) -> Boxyard {
    let boxyard = Boxyard::start(Options { workers, ..Options::default() });
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
    let boxyard = farm(1);
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
    let (boxyard, bell) = (farm(4), Bell::new());
    let dockerfile = format!("FROM busybox\nENV A=b\n{}{}CMD [\"true\"]\n", bell.step("one"), bell.step("two"));
    let builds: Vec<Build> = (0..8).map(|n| Build::start(&boxyard, &format!("b{n}"), &dockerfile, &[])).collect();
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
    let images = boxyard.docker(&["images", "-aq"]);
    assert_eq!(images.lines().len(), 5, "busybox and one image for each step: {images}");
    boxyard.stop();
}

#[test]
fn a_step_that_others_follow() {
    let (boxyard, bell) = (farm(2), Bell::new());
    let start = |name: &str, dockerfile: &str, flags: &[&str]| Build::start(&boxyard, name, dockerfile, flags);

    // The client that had it leaves; the other one gets the step's result.
    let dockerfile = format!("FROM busybox\n{}", bell.step("left"));
    let mut leaves = start("leaves", &dockerfile, &[]);
    leaves.until_said("left began");
    let stays = start("stays", &dockerfile, &[]);
    stays.until_said("left began");
    leaves.child.kill().and_then(|()| leaves.child.wait()).expect("killed");
    let builds = || Client::new(boxyard.socket()).get_json("/boxyard/v1/builds").to_string();
    wait_until("the build to be cancelled", 30, || builds().contains("cancelled").then_some(()));
    bell.answer();
    let (_, said) = stays.built();
    assert!(said.contains("left ended"), "{said}");
    assert_eq!((bell.count("left"), container(&said, "left")), (1, container(&leaves.said(), "left")));

    // Without the cache a build does not follow, and its result is the one that counts from then on.
    bell.hold();
    let dockerfile = format!("FROM busybox\n{}", bell.step("anew"));
    let first = start("first", &dockerfile, &[]);
    first.until_said("anew began");
    let anew = start("anew", &dockerfile, &["--no-cache"]);
    wait_until("both to run", 60, || (bell.count("anew") == 2).then_some(()));
    bell.answer();
    let (first, anew) = (first.built().0, anew.built().0);
    assert_ne!(first, anew);
    assert!([first, anew].contains(&start("found", &dockerfile, &[]).built().0));

    // A command that fails fails for all who followed it, and runs again for who comes later.
    bell.hold();
    let dockerfile = format!("FROM busybox\n{}", bell.step("fails").replace("echo fails ended", "exit 7"));
    let one = start("fails-1", &dockerfile, &[]);
    one.until_said("fails began");
    let other = start("fails-2", &dockerfile, &[]);
    other.until_said("fails began");
    bell.answer();
    for (code, said) in [one.end(), other.end()] {
        assert!(code == 7 && said.contains("returned a non-zero code: 7"), "{said}");
    }
    assert_eq!(bell.count("fails"), 1);
    assert_eq!(start("fails-3", &dockerfile, &[]).end().0, 7);
    assert_eq!(bell.count("fails"), 2);
    boxyard.stop();
}

#[test]
fn the_same_step_in_two_stages_of_a_build_is_found_by_the_later_one() {
    let boxyard = farm(1);
    let stages = "FROM busybox\nRUN echo once; sleep 1\nFROM busybox\nRUN echo once; sleep 1\n";
    let built = boxyard.feed(&["build", "-"], stages.as_bytes());
    let (first, second) = built.ok().split_once("Step 3/4").expect("two stages");
    assert!(first.contains("once\n ---> Removed intermediate container") && !first.contains("Using cache"), "{built}");
    assert!(second.contains(" ---> Using cache") && !second.contains("Running in"), "{built}");
    boxyard.stop();
}
