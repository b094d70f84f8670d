//! A farm whose workers are machines of their own: each has its own network, data folder and user, and reaches only NATS,
//! the layer store and the gateway. What moves is counted at its firewall.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use kit::farm::{Build, Farm};
use kit::{has_ended, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MIB: u64 = 1 << 20;
/// A file that is another one each time that it is made.
const UNIQUE: &str = "cat /proc/sys/kernel/random/uuid > /made";

#[test]
fn eight_clients_of_one_graph_build_on_four_workers() {
    let farm = Farm::start(4);
    let bell = farm.bell();
    // At once, since each port that is not reached costs its patience.
    thread::scope(|scope| {
        for worker in &farm.workers {
            let (cluster, ports) = (&farm.cluster, [22, 2376, 7419, 7420, 7421, 7422, 7423]);
            scope.spawn(move || {
                let reached: Vec<u16> = ports.into_iter().filter(|port| cluster.reaches(worker, *port)).collect();
                assert_eq!(reached, [7420, 7421, 7422], "worker {worker}");
            });
        }
    });
    let (base, before) = (farm.bytes_of("busybox"), farm.received());
    // Two stages that run at once, and what stands on both.
    let dockerfile = format!(
        "FROM busybox AS one\n{}FROM busybox AS two\n{}FROM busybox\nCOPY --from=one /made-one /\n\
         COPY --from=two /made-two /\nRUN cat /made-one /made-two\n",
        bell.step("one").replace("\n", "; head -c 1048576 /dev/urandom > /made-one\n"),
        bell.step("two").replace("\n", "; head -c 1048576 /dev/urandom > /made-two\n"),
    );
    let builds: Vec<Build> = (0..8).map(|number| farm.build(&format!("b{number}"), &dockerfile, &[])).collect();
    // All of them see what is printed while the steps run.
    for build in &builds {
        build.until_printed("one began");
        build.until_printed("two began");
    }
    bell.answer();
    builds.into_iter().for_each(|build| drop(build.done()));
    assert_eq!((bell.count("one"), bell.count("two")), (1, 1));
    let ids: BTreeSet<String> = (0..8).map(|number| farm.image(&format!("b{number}"))).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");

    // Each step ran once, on one worker, whoever asks.
    let mut ran: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for number in 0..8 {
        for (step, worker) in farm.ran(&format!("b{number}")) {
            ran.entry(step).or_default().insert(worker);
        }
    }
    assert_eq!(ran.len(), 5, "{ran:?}");
    assert!(ran.values().all(|workers| workers.len() == 1), "{ran:?}");

    // The base comes once to each worker that needs it; so do those of the four layers of a mebibyte that it did not make.
    let layers = 4 * (MIB + MIB / 16);
    let first = farm.received();
    for (worker, now) in &first {
        let moved = now - before[worker];
        assert!(moved < base + base / 8 + layers, "{moved} bytes moved to worker {worker}, of a base of {base}");
    }
    // Of what is cached nothing moves.
    farm.build("again", &dockerfile, &[]).done();
    for (worker, now) in farm.received() {
        let moved = now - first[&worker];
        assert!(moved < MIB / 2, "{moved} bytes moved to worker {worker} for a build of which all is cached");
    }

    // Files go to where the layer lies that they are put on, rather than that layer to them.
    let stage = |name: &str| {
        let made = format!("RUN sleep 2; head -c {MIB} /dev/urandom > /{name}");
        format!("FROM busybox AS {name}\n{made}\nCOPY Dockerfile /\nWORKDIR /work\n")
    };
    let dockerfile = format!("{}{}FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n", stage("a"), stage("b"));
    farm.build("follows", &dockerfile, &[]).done();
    let ran = farm.ran("follows");
    let of_stage = |name: &str| -> Vec<&str> {
        let steps = ran.iter().filter(|(step, _)| step.starts_with(&format!("[{name} ")));
        steps.map(|(_, worker)| worker.as_str()).collect()
    };
    let (a, b) = (of_stage("a"), of_stage("b"));
    assert_eq!((a.len(), b.len()), (3, 3), "{ran:?}");
    assert!([&a, &b].iter().all(|stage| stage.iter().all(|worker| *worker == stage[0])) && a[0] != b[0], "{ran:?}");
    farm.stop();
}

#[test]
fn a_worker_that_is_cut_off_costs_its_step_and_changes_nothing_later() {
    let farm = Farm::start(2);
    let bell = farm.bell();
    let dockerfile = format!(
        "FROM busybox\nRUN echo before\nRUN {UNIQUE}; echo lost began; {}; echo lost ended\n",
        bell.call("lost")
    );
    let build = farm.build("cut", &dockerfile, &[]);
    build.until_printed("lost began");
    wait_until("the step to call", 30, || (bell.count("lost") == 1).then_some(()));
    let (shim, worker) = farm.running_step();
    farm.cluster.cut_off(&worker);
    wait_until("the step to run again", 90, || (bell.count("lost") == 2).then_some(()));
    assert!(has_ended(shim), "a step of a worker that is cut off ends before it runs again");
    bell.answer();
    // The same client hears of it all.
    let said = build.done();
    assert!(said.contains("lost ended"), "{said}");
    let (image, known) = (farm.image("cut"), farm.build_of("cut"));
    assert_eq!((&known["state"], &known["attempt"]), (&"done".into(), &2.into()), "{known}");
    assert_ne!(known["worker_id"], worker.as_str());
    let id = known["id"].as_str().expect("an id");
    farm.boxyard(&["build", "explain", id]).says(&format!("it runs again: it was cut short on worker {worker}"));

    // It is back late.
    farm.cluster.reconnect(&worker);
    wait_until("the worker to know that it has lost the build", 60, || {
        farm.cluster.log(&worker, "build-worker-1").contains("outcome=\"lost\"").then_some(())
    });
    wait_until("the worker to be back", 60, || farm.alive().contains(&worker).then_some(()));
    farm.build("again", &dockerfile, &[]).done();
    assert_eq!((farm.image("cut"), farm.image("again"), bell.count("lost")), (image.clone(), image, 2));
    farm.stop();
}

#[test]
fn a_result_that_comes_late_is_not_taken() {
    let farm = Farm::start(2);
    let bell = farm.bell();
    bell.answer();
    // It ends by itself before its time is over, but what it made does not get out.
    let dockerfile = format!("FROM busybox\nRUN {UNIQUE}; {}; echo late began; sleep 4\n", bell.call("late"));
    let build = farm.build("late", &dockerfile, &[]);
    build.until_printed("late began");
    let (shim, worker) = farm.running_step();
    farm.cluster.cut_off(&worker);
    wait_until("the step to end", 30, || has_ended(shim).then_some(()));
    let said = build.done();
    let image = farm.image("late");
    assert_eq!(bell.callers(), ["late", "late"], "{said}");
    farm.cluster.reconnect(&worker);
    wait_until("the worker to know that it has lost the build", 60, || {
        farm.cluster.log(&worker, "build-worker-1").contains("outcome=\"lost\"").then_some(())
    });
    let known = farm.build_of("late");
    assert_eq!((&known["state"], &known["attempt"]), (&"done".into(), &2.into()), "{known}");
    farm.build("again", &dockerfile, &[]).done();
    assert_eq!((farm.image("late"), farm.image("again"), bell.count("late")), (image.clone(), image, 2));
    farm.stop();
}

#[test]
fn a_worker_killed_before_its_step_is_acknowledged() {
    let mut farm = Farm::start(2);
    let bell = farm.bell();
    let dockerfile = format!("FROM busybox\n{}{}", bell.step("kept"), bell.step("lost"));
    let build = farm.build("killed", &dockerfile, &[]);
    wait_until("the first step to call", 60, || (bell.count("kept") == 1).then_some(()));
    bell.answer();
    bell.hold();
    wait_until("the second step to call", 60, || (bell.count("lost") == 1).then_some(()));
    let stored = || farm.boxyard(&["system", "df"]).ok().to_owned();
    wait_until("the first step's result to be recorded", 30, || {
        stored().lines().any(|line| line.starts_with("Build Cache") && line.contains(" 1 ")).then_some(())
    });
    let (shim, worker) = farm.running_step();
    // The step ends, and what it made can be told to nobody: the layer store stands still.
    let store = Pid::from_raw(farm.cluster.pids_of("head", "boxyard-layer-store")[0]);
    kill(store, Signal::SIGSTOP).expect("stopped");
    bell.answer();
    wait_until("the step to be told as done", 60, || build.printed("lost ended")?.contains("DONE").then_some(()));
    assert!(has_ended(shim));
    farm.cluster.kill(&worker);
    kill(store, Signal::SIGCONT).expect("goes on");
    let said = build.done();
    assert_eq!((bell.count("kept"), bell.count("lost")), (1, 2), "{said}");
    let known = farm.build_of("killed");
    assert_eq!((&known["state"], &known["attempt"]), (&"done".into(), &2.into()), "{known}");
    // Which step ran again, and why; not the one whose layer was stored.
    let explained = farm.boxyard(&["build", "explain", known["id"].as_str().expect("an id")]);
    let again = explained.ok().matches("it runs again").count();
    assert_eq!(again, 1, "{explained}");
    explained.says(&format!("it runs again: worker {worker} was lost before its layer was stored"));
    farm.cluster.up(&worker);
    farm.stop();
}

#[test]
fn a_shell_in_a_step_is_on_any_machine_with_a_node() {
    let mut farm = Farm::start(1);
    farm.cluster.join("b", &[("node", "b")]);
    let (code, said) = farm.build("bad", "FROM busybox\nRUN echo there > /left; exit 3\n", &[]).end();
    assert!(code == 1 && said.contains("exit code: 3"), "{code}: {said}");
    let id = farm.boxyard(&["build", "ls", "-q", "--no-trunc", "-n", "1"]).ok().to_owned();
    let shell = |farm: &Farm| farm.boxyard(&["build", "shell", &id, "--", "sh", "-c", "cat /left; exit 7"]);
    // The node is told of a moment after its machine has begun.
    let first = wait_until("a node", 60, || Some(shell(&farm)).filter(|shell| !shell.stderr.contains("no node")));
    // The layers come from the store, so nobody misses the worker.
    farm.cluster.cut_off("w1");
    for shell in [first, shell(&farm)] {
        shell.fails(7, "");
        assert_eq!(shell.stdout, "there\n", "{shell}");
    }
    assert_eq!(farm.cluster.docker(&["ps", "-aq"]).ok(), "", "no container stays");
    farm.cluster.reconnect("w1");
    farm.stop();
}
