//! The build farm when its parts fail: workers stopped and killed, the bus restarted, clients that leave.

use std::path::Path;
use std::time::{Duration, Instant};

use kit::farm::{Build, Farm};
use kit::{Postgres, has_ended, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MIB: u64 = 1 << 20;

/// A process of a machine's of which there is one.
fn process(farm: &Farm, machine: &str, program: &str) -> Pid {
    let pids = farm.cluster.pids_of(machine, program);
    assert_eq!(pids.len(), 1, "{program} of {machine}");
    Pid::from_raw(pids[0])
}

/// A classic build, whose step has begun.
fn began(farm: &Farm, name: &str, dockerfile: &str, said: &str) -> Build {
    let build = farm.classic(name, dockerfile, &[]);
    build.until_said(said);
    build
}

/// The other one of two workers.
fn other<'a>(farm: &'a Farm, worker: &str) -> &'a str {
    farm.workers.iter().find(|other| *other != worker).expect("another worker")
}

#[test]
fn a_worker_that_stops_costs_the_step_that_it_ran() {
    let farm = Farm::start(2);
    let bell = farm.bell();
    let dockerfile = format!("FROM busybox\nRUN echo before\n{}", bell.step("lost"));
    let first = began(&farm, "first", &dockerfile, "lost began");
    let (shim, worker) = farm.running_step();
    assert_eq!(farm.worker_of("first"), worker);
    let second = farm.elsewhere(&worker, || began(&farm, "second", &dockerfile, "lost began"));
    let stopped = process(&farm, &worker, "boxyard-build-worker");
    kill(stopped, Signal::SIGSTOP).expect("stopped");
    // The step's process ends before another may claim the step, though its worker can do nothing about it.
    wait_until("the step to be killed", 30, || has_ended(shim).then_some(()));
    wait_until("the step to run again", 90, || (bell.count("lost") == 2).then_some(()));
    bell.answer();
    let ended: Vec<(String, String)> = [first, second].map(Build::built).into();
    for (id, said) in &ended {
        assert!(*id == ended[0].0 && said.contains("lost ended"), "{said}");
    }
    let unchanged = || {
        for (name, attempts) in [("first", 2), ("second", 1)] {
            let known = farm.build_of(name);
            assert_eq!((&known["state"], &known["attempt"]), (&"done".into(), &attempts.into()), "{known}");
            assert_eq!(known["worker_id"], other(&farm, &worker));
        }
        // It ran for one of the two, whichever was faster.
        let ran = [farm.ran_on("first", "echo lost"), farm.ran_on("second", "echo lost")].concat();
        assert_eq!(ran, [other(&farm, &worker)]);
        assert_eq!((farm.image("first"), bell.count("lost")), (farm.image("second"), 2));
    };
    unchanged();
    // It wakes up late, and changes nothing.
    kill(stopped, Signal::SIGCONT).expect("goes on");
    let log = wait_until("the worker to end what it had of the build", 60, || {
        Some(farm.cluster.log(&worker, "build-worker-1")).filter(|log| log.contains("build ended"))
    });
    assert!(!log.contains("outcome=\"built\""), "{log}");
    unchanged();
    farm.stop();
}

#[test]
fn steps_that_were_stored_are_not_run_again_when_their_worker_is_killed() {
    let mut farm = Farm::start(2);
    let bell = farm.bell();
    let (base, before) = (farm.bytes_of("busybox"), farm.received());
    let made = "head -c 1048576 /dev/urandom > /made\n";
    let first = bell.step("before").replace('\n', &format!("; {made}"));
    let build = farm.classic("killed", &format!("FROM busybox\n{first}{}", bell.step("lost")), &[]);
    wait_until("the first step", 60, || (bell.count("before") == 1).then_some(()));
    bell.answer();
    bell.hold();
    wait_until("the second step", 60, || (bell.count("lost") == 1).then_some(()));
    // The first one's layer is stored by now, or will be in a moment; its record comes right after it.
    wait_until("the first step's image", 30, || {
        (farm.cluster.docker(&["images", "-aq"]).lines().len() == 2).then_some(())
    });
    let (_, worker) = farm.running_step();
    farm.cluster.kill(&worker);
    wait_until("the step to run again", 90, || (bell.count("lost") == 2).then_some(()));
    bell.answer();
    let (_, said) = build.built();
    assert_eq!((bell.count("before"), bell.count("lost")), (1, 2), "{said}");
    let known = farm.build_of("killed");
    assert_eq!((&known["attempt"], &known["state"]), (&2.into(), &"done".into()), "{known}");
    // The other worker found what the first step had made, and had it from the store.
    let other = other(&farm, &worker).to_owned();
    assert_eq!(known["worker_id"], other.as_str());
    assert_eq!(farm.ran_on("killed", "echo before"), [] as [&str; 0]);
    assert_eq!(farm.ran_on("killed", "echo lost"), [other.as_str()]);
    let moved = farm.received()[&other] - before[&other];
    assert!((MIB..base + base / 8 + 2 * MIB).contains(&moved), "{moved} bytes moved to {other}, of a base of {base}");
    farm.cluster.up(&worker);
    farm.stop();
}

#[test]
fn a_build_outlives_a_restart_of_the_bus() {
    let farm = Farm::start(2);
    let bell = farm.bell();
    let dockerfile = format!("FROM busybox\n{}RUN echo after\n", bell.step("during"));
    let first = began(&farm, "first", &dockerfile, "during began");
    let worker = farm.worker_of("first");
    let bus = process(&farm, "head", "nats-server");
    kill(bus, Signal::SIGKILL).expect("killed");
    wait_until("the bus to be there again", 30, || {
        let pids = farm.cluster.pids_of("head", "nats-server");
        (pids.len() == 1 && pids[0] != bus.as_raw()).then_some(())
    });
    // Longer than a claim lives without being renewed.
    std::thread::sleep(Duration::from_secs(12));
    let second = farm.elsewhere(&worker, || began(&farm, "second", &dockerfile, "during began"));
    bell.answer();
    let ids = [first, second].map(|build| build.built().0);
    assert_eq!(ids[0], ids[1]);
    assert_eq!(bell.count("during"), 1, "it was claimed all the time");
    assert_eq!(farm.ran_on("first", "echo during"), [worker.as_str()]);
    assert_eq!(farm.ran_on("second", "echo during"), [] as [&str; 0]);
    assert_eq!(farm.worker_of("second"), other(&farm, &worker));
    farm.stop();
}

#[test]
fn a_build_whose_client_leaves_ends_within_two_seconds() {
    let farm = Farm::start(1);
    let bell = farm.bell();
    let dockerfile = format!("FROM busybox\nRUN trap '' TERM INT; echo deaf began; sleep 600\n{}", bell.step("never"));
    let mut build = began(&farm, "left", &dockerfile, "deaf began");
    let (shim, _) = farm.running_step();
    build.child.kill().and_then(|()| build.child.wait()).expect("killed");
    let left = Instant::now();
    wait_until("the step's process to end", 10, || (!Path::new(&format!("/proc/{shim}")).exists()).then_some(()));
    assert!(left.elapsed() < Duration::from_secs(2), "it took {:?}", left.elapsed());
    wait_until("the build to be cancelled", 10, || (farm.build_of("left")["state"] == "cancelled").then_some(()));
    farm.cluster.docker(&["image", "inspect", "left"]).fails(1, "No such image: left");
    assert_eq!(farm.cluster.docker(&["images", "-aq"]).lines().len(), 1, "no step has left an image");
    farm.stop();
}

#[test]
fn a_build_that_three_workers_were_lost_with_fails_with_their_names() {
    let mut farm = Farm::start(3);
    let bell = farm.bell();
    let build = farm.classic("given-up", &format!("FROM busybox\n{}", bell.step("lost")), &[]);
    let mut lost = Vec::new();
    for attempt in 1..=3 {
        wait_until("the step to run", 90, || (bell.count("lost") == attempt).then_some(()));
        let (shim, worker) = farm.running_step();
        assert_eq!(farm.worker_of("given-up"), worker);
        farm.cluster.kill(&worker);
        wait_until("its step to be killed with it", 30, || has_ended(shim).then_some(()));
        lost.push(worker);
    }
    let (code, said) = build.end();
    let why = format!("the build was given up: 3 workers in a row were lost with it: {}", lost.join(", "));
    assert!(code != 0 && said.contains(&why), "{why}: {said}");
    assert_eq!((farm.build_of("given-up")["state"].as_str(), bell.count("lost")), (Some("failed"), 3));
    lost.iter().for_each(|worker| farm.cluster.up(worker));
    farm.stop();
}

#[test]
fn a_worker_killed_between_its_steps_and_the_image_leaves_one_whole_image() {
    let postgres = Postgres::start();
    let mut farm = Farm::start_on(&postgres, 2);
    let bell = farm.bell();
    let build = farm.build("whole", &format!("FROM busybox\n{}", bell.step("once")), &[]);
    wait_until("the step to call", 60, || (bell.count("once") == 1).then_some(()));
    let (_, worker) = farm.running_step();
    // No image can be written from here on; all else can.
    let lock = postgres.lock("images");
    bell.answer();
    // The step's result is acknowledged: the build is at its image.
    wait_until("the image to be written", 60, || postgres.is_waited_for("images").then_some(()));
    farm.cluster.kill(&worker);
    drop(lock);
    build.done();
    let known = farm.build_of("whole");
    assert_eq!((&known["attempt"], &known["state"]), (&2.into(), &"done".into()), "{known}");
    assert_eq!(known["worker_id"], other(&farm, &worker));
    assert_eq!(bell.count("once"), 1, "its result was recorded");
    assert_eq!(farm.ran_on("whole", "echo once"), [] as [&str; 0], "the second attempt found it");
    assert_eq!(farm.cluster.docker(&["images", "-aq"]).lines().len(), 2, "busybox, and one image");
    farm.build("uses", "FROM whole\nRUN true\n", &[]).done();
    farm.cluster.up(&worker);
    farm.stop();
}
