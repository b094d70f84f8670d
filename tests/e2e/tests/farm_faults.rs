//! The build farm when its parts fail: workers stopped, killed and cut off, the bus restarted, clients that leave.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kit::farm::{Bell, Build};
use kit::{Boxyard, Client, Options, Postgres, has_ended, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A Boxyard with busybox and so many workers.
fn farm(workers: u32) -> Boxyard {
    let boxyard = Boxyard::start(Options { workers, ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    boxyard
}

/// The shim of a step, and the worker that has it: the shim's parent.
fn shim_and_worker(boxyard: &Boxyard) -> (i32, Pid) {
    // A build's output names a step before it runs.
    let shim = wait_until("a step to run", 30, || boxyard.pids_of("boxyard-shim").into_iter().next());
    let status = fs::read_to_string(format!("/proc/{shim}/status")).expect("it is there");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    (shim, Pid::from_raw(parent.trim().parse().expect("a number")))
}

fn builds(boxyard: &Boxyard) -> serde_json::Value {
    Client::new(boxyard.socket()).get_json("/boxyard/v1/builds")
}

#[test]
fn a_worker_that_stops_costs_the_step_that_it_ran() {
    let (boxyard, bell) = (farm(2), Bell::new());
    let dockerfile = format!("FROM busybox\nRUN echo before\n{}", bell.step("lost"));
    let first = Build::start(&boxyard, "first", &dockerfile, &[]);
    first.until_said("lost began");
    let second = Build::start(&boxyard, "second", &dockerfile, &[]);
    second.until_said("lost began");
    let (shim, worker) = shim_and_worker(&boxyard);
    kill(worker, Signal::SIGSTOP).expect("stopped");
    // The step's process ends before another may claim the step, though its worker can do nothing about it.
    wait_until("the step to be killed", 30, || has_ended(shim).then_some(()));
    wait_until("the step to run again", 90, || (bell.count("lost") == 2).then_some(()));
    bell.answer();
    let ended: Vec<(String, String)> = [first, second].map(Build::built).into();
    // It wakes up late, and changes nothing.
    kill(worker, Signal::SIGCONT).expect("goes on");
    for (id, said) in &ended {
        assert!(*id == ended[0].0 && said.contains("lost ended"), "{said}");
    }
    assert_eq!(bell.count("lost"), 2);
    let listed = builds(&boxyard);
    let states: Vec<&str> =
        listed["items"].as_array().expect("items").iter().filter_map(|b| b["state"].as_str()).collect();
    assert_eq!(states, ["done", "done"]);
    boxyard.stop();
}

#[test]
fn steps_that_were_stored_are_not_run_again_when_their_worker_is_killed() {
    let (boxyard, bell) = (farm(2), Bell::new());
    let dockerfile = format!("FROM busybox\n{}{}", bell.step("before"), bell.step("lost"));
    let build = Build::start(&boxyard, "build", &dockerfile, &[]);
    wait_until("the first step", 60, || (bell.count("before") == 1).then_some(()));
    bell.answer();
    bell.hold();
    wait_until("the second step", 60, || (bell.count("lost") == 1).then_some(()));
    // The first one's layer is stored by now, or will be in a moment; its record comes right after it.
    let images = || boxyard.docker(&["images", "-aq"]).lines().len();
    wait_until("the first step's image", 30, || (images() == 2).then_some(()));
    let (_, worker) = shim_and_worker(&boxyard);
    kill(worker, Signal::SIGKILL).expect("killed");
    wait_until("the step to run again", 90, || (bell.count("lost") == 2).then_some(()));
    bell.answer();
    let (_, said) = build.built();
    assert_eq!((bell.count("before"), bell.count("lost")), (1, 2), "{said}");
    let build = &builds(&boxyard)["items"][0];
    assert_eq!((&build["attempt"], &build["state"]), (&2.into(), &"done".into()), "{build}");
    boxyard.stop();
}

#[test]
fn a_build_outlives_a_restart_of_the_bus() {
    let (boxyard, bell) = (farm(2), Bell::new());
    let dockerfile = format!("FROM busybox\n{}RUN echo after\n", bell.step("during"));
    let first = Build::start(&boxyard, "first", &dockerfile, &[]);
    first.until_said("during began");
    assert_eq!(boxyard.kill_service("nats-server"), 1);
    wait_until("the bus to be there again", 30, || (boxyard.pids_of("nats-server").len() == 1).then_some(()));
    // Longer than a claim lives without being renewed.
    std::thread::sleep(Duration::from_secs(12));
    let second = Build::start(&boxyard, "second", &dockerfile, &[]);
    second.until_said("during began");
    bell.answer();
    let ids = [first, second].map(|build| build.built().0);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(bell.count("during"), 1, "it was claimed all the time");
    boxyard.stop();
}

#[test]
fn a_build_whose_client_leaves_ends_within_two_seconds() {
    let (boxyard, bell) = (farm(1), Bell::new());
    let dockerfile = format!("FROM busybox\nRUN trap '' TERM INT; echo deaf began; sleep 600\n{}", bell.step("never"));
    let mut build = Build::start(&boxyard, "left", &dockerfile, &["-t", "left"]);
    build.until_said("deaf began");
    let (shim, _) = shim_and_worker(&boxyard);
    build.child.kill().and_then(|()| build.child.wait()).expect("killed");
    let left = Instant::now();
    wait_until("the step's process to end", 10, || (!Path::new(&format!("/proc/{shim}")).exists()).then_some(()));
    assert!(left.elapsed() < Duration::from_secs(2), "it took {:?}", left.elapsed());
    wait_until("the build to be cancelled", 10, || {
        (builds(&boxyard)["items"][0]["state"] == "cancelled").then_some(())
    });
    boxyard.docker(&["image", "inspect", "left"]).fails(1, "No such image: left");
    assert_eq!(boxyard.docker(&["images", "-aq"]).lines().len(), 1, "no step has left an image");
    boxyard.stop();
}

#[test]
fn a_build_that_three_workers_were_lost_with_fails_with_their_names() {
    let (boxyard, bell) = (farm(3), Bell::new());
    let build = Build::start(&boxyard, "given-up", &format!("FROM busybox\n{}", bell.step("lost")), &[]);
    let mut lost = Vec::new();
    for attempt in 1..=3 {
        wait_until("the step to run", 90, || (bell.count("lost") == attempt).then_some(()));
        lost.push(builds(&boxyard)["items"][0]["worker_id"].as_str().expect("a worker").to_owned());
        let (_, worker) = shim_and_worker(&boxyard);
        kill(worker, Signal::SIGKILL).expect("killed");
        wait_until("its step to be killed with it", 30, || boxyard.pids_of("boxyard-shim").is_empty().then_some(()));
    }
    let (code, said) = build.end();
    let why = format!("the build was given up: 3 workers in a row were lost with it: {}", lost.join(", "));
    assert!(code != 0 && said.contains(&why), "{why}: {said}");
    assert_eq!((builds(&boxyard)["items"][0]["state"].as_str(), bell.count("lost")), (Some("failed"), 3));
    boxyard.stop();
}

#[test]
fn a_worker_killed_between_its_steps_and_the_image_leaves_one_whole_image() {
    let postgres = Postgres::start();
    let options = Options { workers: 2, database: Some(postgres.url()), ..Options::default() };
    let (boxyard, bell) = (Boxyard::start(options), Bell::new());
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let context = boxyard.work_dir().join("context");
    fs::create_dir(&context).expect("make the context");
    let dockerfile = format!("FROM busybox\n{}", bell.step("once"));
    fs::write(context.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
    let path = context.display().to_string();
    let args = ["build", "--progress", "plain", "--network", "host", "-t", "whole", &path];
    std::thread::scope(|scope| {
        let building = scope.spawn(|| boxyard.boxyard(&args));
        wait_until("the step to call", 60, || (bell.count("once") == 1).then_some(()));
        let (_, worker) = shim_and_worker(&boxyard);
        // No image can be written from here on; all else can.
        let lock = postgres.lock("images");
        bell.answer();
        // The step's result is acknowledged: the build is at its image.
        wait_until("the image to be written", 60, || postgres.is_waited_for("images").then_some(()));
        kill(worker, Signal::SIGKILL).expect("killed");
        drop(lock);
        building.join().expect("it ends").ok();
    });
    let build = &builds(&boxyard)["items"][0];
    assert_eq!((&build["attempt"], &build["state"]), (&2.into(), &"done".into()), "{build}");
    assert_eq!(bell.count("once"), 1, "its result was recorded");
    assert_eq!(boxyard.docker(&["images", "-aq"]).lines().len(), 2, "busybox, and one image");
    boxyard.docker(&["run", "--rm", "whole", "true"]).ok();
    boxyard.stop();
}
