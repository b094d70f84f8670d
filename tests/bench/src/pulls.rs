//! Pull and push of several hundred megabytes, from and to a docker-registry, and what the services hold meanwhile.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use kit::Registry;

use crate::memory::{all_processes, megabytes};
use crate::pair::{Goal, Pair, Report, Side};
use crate::programs::Programs;
use crate::transfers::{Content, image, middle, timed};

/// 7 layers, 20,000 files, 400 MB.
const PULLED: Content = Content { layers: 6, files: 3_000, file_bytes: 20_000 };
const ROUNDS: usize = 3;

pub fn measure(pair: &Pair, report: &mut Report) {
    pull(pair, report);
    push(pair, report);
    memory(pair, report);
}

fn pull(pair: &Pair, report: &mut Report) {
    let name = "pull 400 MB and first run";
    if !report.wants(name) {
        return;
    }
    let registry = Registry::start();
    let tag = format!("{}/bench/pulled:1", registry.host());
    let first = &pair.sides[0];
    first.docker_fed(&["load", "-q"], Some(&image(&tag, &PULLED))).ok();
    first.docker(&["push", "-q", &tag]).ok();
    first.docker(&["rmi", &tag]).ok();
    let mut taken = [Vec::new(), Vec::new()];
    // The first round brings the registry's files into memory and does not count.
    for round in 0..=ROUNDS {
        for (index, side) in pair.sides.iter().enumerate() {
            let seconds = timed(|| {
                side.docker(&["pull", "-q", &tag]).ok();
                side.docker(&["run", "--rm", &tag, "true"]).ok();
            });
            if round > 0 {
                taken[index].push(seconds);
            }
            side.docker(&["rmi", &tag]).ok();
            settle();
        }
    }
    report.row(name, taken.map(middle), "ms", Goal::Faster(1.5));
}

fn push(pair: &Pair, report: &mut Report) {
    let (first, again) = ("push 400 MB, just built", "pushed again");
    if !report.wants(first) && !report.wants(again) {
        return;
    }
    let (mut firsts, mut agains) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for (index, side) in pair.sides.iter().enumerate() {
            // A registry that has nothing yet, and layers that nobody has packed yet.
            let registry = Registry::start();
            let tag = format!("{}/bench/pushed:1", registry.host());
            let context = pair.folder(index).join("context");
            fill(&context);
            side.docker(&["build", "-q", "-t", &tag, &context.to_string_lossy()]).ok();
            settle();
            firsts[index].push(timed(|| {
                side.docker(&["push", "-q", &tag]).ok();
            }));
            agains[index].push(timed(|| {
                side.docker(&["push", "-q", &tag]).ok();
            }));
            side.docker(&["rmi", &tag]).ok();
            side.docker(&["image", "prune", "-f"]).ok();
            fs::remove_dir_all(&context).expect("remove the context");
        }
    }
    report.row(first, firsts.map(middle), "ms", Goal::Faster(3.0));
    report.row(again, agains.map(middle), "ms", Goal::Below(100.0));
}

/// Four layers of 100 MB, new ones each time.
fn fill(context: &std::path::Path) {
    let mut dockerfile = "FROM busybox\n".to_owned();
    let mut programs = Programs::new();
    for layer in 0..4 {
        let folder = context.join(format!("data{layer}"));
        fs::create_dir_all(&folder).expect("make the context");
        for file in 0..2_000 {
            fs::write(folder.join(format!("file{file}")), programs.piece(50_000)).expect("write a file");
        }
        dockerfile += &format!("COPY data{layer} /data{layer}\n");
    }
    fs::write(context.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
}

/// The largest sum of all processes while one large layer is pulled.
fn memory(pair: &Pair, report: &mut Report) {
    let name = "memory while a 10 GB layer passes, PSS";
    if !report.wants(name) {
        return;
    }
    let registry = Registry::start();
    let tag = format!("{}/bench/large:1", registry.host());
    let first = &pair.sides[0];
    let dockerfile = "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=10240 2>/dev/null\n";
    first.docker_fed(&["build", "-q", "-t", &tag, "-"], Some(dockerfile.as_bytes())).ok();
    first.docker(&["push", "-q", &tag]).ok();
    first.docker(&["rmi", &tag]).ok();
    let values = [0, 1].map(|index| {
        let side = &pair.sides[index];
        let most = largest(side, &tag);
        side.docker(&["rmi", &tag]).ok();
        most
    });
    report.row(name, values, "MB", Goal::Below(200.0));
}

/// The largest sum that was seen until the pull had ended.
fn largest(side: &Side, tag: &str) -> f64 {
    let mut pull = kit::client(side.socket());
    let mut pull = pull.args(["pull", "-q", tag]).stdout(Stdio::null()).spawn().expect("docker starts");
    let mut most: f64 = 0.0;
    loop {
        if let Some(status) = pull.try_wait().expect("docker's end") {
            assert!(status.success(), "docker pull {tag}: {status}");
            return most;
        }
        most = most.max(megabytes(&all_processes(side), "Pss:"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What one side left to be written is not the other's.
fn settle() {
    kit::run_command(&mut Command::new("sync"), &[] as &[&str], None).ok();
}
