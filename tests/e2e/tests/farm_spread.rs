//! Steps of one build on several workers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kit::farm::Farm;
use kit::{Cluster, has_ended, wait_until};

const MIB: u64 = 1 << 20;

/// Four stages ran on four workers, and what follows a step ran where the step did.
fn are_spread(ran: &[(String, String)]) {
    let of_stage = |stage: u32| -> Vec<&str> {
        let steps = ran.iter().filter(|(step, _)| step.starts_with(&format!("[s{stage} ")));
        steps.map(|(_, worker)| worker.as_str()).collect()
    };
    let stages: Vec<Vec<&str>> = (1..=4).map(of_stage).collect();
    for workers in &stages {
        assert_eq!(workers.len(), 2, "{ran:?}");
        assert_eq!(workers[0], workers[1], "{ran:?}");
    }
    assert_eq!(stages.iter().flatten().collect::<BTreeSet<_>>().len(), 4, "{ran:?}");
}

#[test]
fn stages_that_do_not_need_each_other_go_to_different_workers() {
    let farm = Farm::start(4);
    let (base, before) = (farm.bytes_of("busybox"), farm.received());
    let stage = |n: u32| format!("FROM busybox AS s{n}\nRUN sleep 5; echo {n} > /made{n}\nRUN cat /made{n}\n");
    let copies: String = (1..=4).map(|n| format!("COPY --from=s{n} /made{n} /\n")).collect();
    let stages: String = (1..=4).map(stage).collect();
    let dockerfile = format!("{stages}FROM busybox\n{copies}RUN cat /made1 /made2 /made3 /made4\n");
    let began = Instant::now();
    farm.build("spread", &dockerfile, &[]).done();
    let took = began.elapsed();
    are_spread(&farm.ran("spread"));
    // Far less than one after the other; this machine's own pace comes on top of the longest.
    assert!(took < Duration::from_secs(12), "{took:?}");
    // Each worker runs a step on the base, which comes to it once.
    let first = farm.received();
    for (worker, now) in &first {
        let moved = now - before[worker];
        assert!(moved > base / 8, "{moved} bytes moved to worker {worker}, which ran a step on a base of {base}");
        assert!(moved < base + base / 8 + MIB / 2, "{moved} bytes moved to worker {worker}, of a base of {base}");
    }
    // Without the cache it is the same, but for the base, which is there.
    farm.build("anew", &dockerfile, &["--no-cache"]).done();
    are_spread(&farm.ran("anew"));
    for (worker, now) in farm.received() {
        let moved = now - first[&worker];
        assert!(moved < MIB / 2, "{moved} bytes moved to worker {worker}, which had the base");
    }
    farm.stop();
}

/// What happens to a worker: its name, how it goes, how the worker comes back.
type Fault = (&'static str, fn(&mut Cluster, &str), fn(&mut Cluster, &str));

const FAULTS: [Fault; 2] = [
    ("cut-off", |cluster, worker| cluster.cut_off(worker), |cluster, worker| cluster.reconnect(worker)),
    ("killed", Cluster::kill, Cluster::up),
];

#[test]
fn a_helping_worker_that_is_lost_costs_the_step_that_it_ran() {
    let mut farm = Farm::start(3);
    let bell = farm.bell();
    for (fault, lose, bring_back) in FAULTS {
        bell.hold();
        let (one, two) = (format!("{fault}-one"), format!("{fault}-two"));
        let step = |name: &str| bell.step(name).replace("\n", "; echo > /etc/passwd\n");
        let dockerfile = format!(
            "FROM busybox AS one\n{}FROM busybox AS two\n{}FROM busybox\nCOPY --from=one /etc/passwd /one\n\
             COPY --from=two /etc/passwd /two\n",
            step(&one),
            step(&two),
        );
        let build = farm.build(fault, &dockerfile, &[]);
        let calls = || bell.count(&one) + bell.count(&two);
        wait_until("both steps to call", 60, || (calls() == 2).then_some(()));
        let builder = farm.worker_of(fault);
        let of = |worker: &String| (worker.clone(), farm.cluster.pids_of(worker, "boxyard-shim"));
        let others = farm.workers.iter().filter(|worker| **worker != builder);
        let helping: Vec<(String, Vec<i32>)> = others.map(of).filter(|(_, shims)| !shims.is_empty()).collect();
        assert!(helping.len() == 1 && helping[0].1.len() == 1, "two workers run one of them each: {helping:?}");
        let (helper, shim) = (&helping[0].0, helping[0].1[0]);
        lose(&mut farm.cluster, helper);
        wait_until("the step to run again", 90, || (calls() == 3).then_some(()));
        assert!(has_ended(shim), "a step of a worker that is lost ends before it runs again");
        bell.answer();
        build.done();
        assert_eq!(farm.build_of(fault)["attempt"], 1);
        for step in [&one, &two] {
            let ran = farm.ran_on(fault, &format!("RUN echo {step} began"));
            assert!(ran.len() == 1 && ran[0] != *helper, "{step}: {ran:?}, not {helper}");
        }
        bring_back(&mut farm.cluster, helper);
        wait_until("the worker to be back", 60, || farm.alive().contains(helper).then_some(()));
    }
    farm.stop();
}
