//! What more workers bring: stages of one build, and many builds that share their first steps.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use kit::{Boxyard, LoopDisk, Options};

use crate::pair::{Goal, Report};
use crate::transfers::{middle, timed};

const STAGES: &str = "farm: 4 stages that sleep, 4 workers";
/// What a stage sleeps.
const STAGE_SECONDS: f64 = 4.0;
const BUILDS: usize = 40;
/// What a step sleeps.
const STEP_SECONDS: usize = 2;
const SHARED_STEPS: usize = 5;
const OWN_STEPS: usize = 2;
const DISK_MB: u64 = 8 << 10;

pub fn measure(report: &mut Report) {
    if report.wants(STAGES) {
        let limit = STAGE_SECONDS * 1.1;
        report.row_beside("longest + 10 %", STAGES, [limit, stages()], "ms", Goal::Faster(1.0));
    }
    let rows =
        [(2, "farm: 40 builds, 2 workers"), (4, "farm: 40 builds, 4 workers"), (8, "farm: 40 builds, 8 workers")];
    if !rows.iter().any(|(_, name)| report.wants(name)) {
        return;
    }
    let alone = many(1);
    for (workers, name) in rows.into_iter().filter(|(_, name)| report.wants(name)).collect::<Vec<_>>() {
        // Beside 0.9 of what so many workers would take if each did as much as one alone.
        let limit = alone / f64::from(workers) / 0.9;
        report.row_beside("1 worker / N / 0.9", name, [limit, many(workers)], "ms", Goal::Faster(1.0));
    }
}

struct Farm {
    boxyard: Boxyard,
    _disk: LoopDisk,
}

impl Farm {
    /// Workers that do one thing at once, so that what they do at once is their number.
    fn start(workers: u32) -> Self {
        let disk = LoopDisk::new(DISK_MB);
        let options =
            Options { workers, worker_slots: Some(1), data_dir: Some(disk.path().join("data")), ..Options::default() };
        let boxyard = Boxyard::start(options);
        boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
        Self { boxyard, _disk: disk }
    }

    fn build(&self, name: &str, dockerfile: &str) -> Build {
        let context = self.boxyard.work_dir().join(name);
        std::fs::create_dir_all(&context).expect("make the context");
        std::fs::write(context.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
        start_build(self.boxyard.socket(), name, &context)
    }
}

/// A docker command at work.
struct Build {
    client: Child,
    log: PathBuf,
}

fn start_build(socket: &Path, name: &str, context: &Path) -> Build {
    let mut command = kit::session_client(socket);
    let path = context.with_extension("log");
    let log = File::create(&path).expect("make the log");
    command.current_dir(context).args(["build", "--progress", "plain", "-t", name, "."]).stdin(Stdio::null());
    let client = command.stdout(Stdio::null()).stderr(log).spawn().expect("docker starts");
    Build { client, log: path }
}

fn end(mut build: Build) {
    let status = build.client.wait().expect("docker's end");
    assert!(status.success(), "a build failed:\n{}", std::fs::read_to_string(build.log).unwrap_or_default());
}

fn stages() -> f64 {
    let farm = Farm::start(4);
    let mut taken = Vec::new();
    for round in 0..4 {
        let stage = |number: u32| {
            format!("FROM busybox AS s{number}\nRUN sleep {STAGE_SECONDS}; echo {round} {number} > /out{number}\n")
        };
        let copy = |number: u32| format!("COPY --from=s{number} /out{number} /\n");
        let stages: String = (1..=4).map(stage).collect();
        let copies: String = (1..=4).map(copy).collect();
        let dockerfile = format!("{stages}FROM busybox\n{copies}");
        let seconds = timed(|| end(farm.build("stages", &dockerfile)));
        // The first round brings busybox to the workers and does not count.
        if round > 0 {
            taken.push(seconds);
        }
    }
    farm.boxyard.stop();
    middle(taken)
}

/// Seconds that the builds' own steps took all together: from the end of the shared steps, which run once whatever the
/// number of workers, to the end of the last build.
fn many(workers: u32) -> f64 {
    let farm = Farm::start(workers);
    let mut shared = "FROM busybox\n".to_owned();
    for step in 0..SHARED_STEPS {
        shared += &format!("RUN sleep {STEP_SECONDS}; cat /proc/uptime > /shared{step}\n");
    }
    let begin = Instant::now();
    let builds: Vec<Build> = (0..BUILDS)
        .map(|build| {
            let own: String =
                (0..OWN_STEPS).map(|step| format!("RUN sleep {STEP_SECONDS}; echo {build} > /own{step}\n")).collect();
            farm.build(&format!("build{build}"), &format!("{shared}{own}"))
        })
        .collect();
    builds.into_iter().for_each(end);
    let seconds = begin.elapsed().as_secs_f64() - (SHARED_STEPS * STEP_SECONDS) as f64;
    assert_shared(&farm);
    farm.boxyard.stop();
    seconds
}

/// Every build has the same layers of the shared steps: each ran once, since no two runs leave the same bytes.
fn assert_shared(farm: &Farm) {
    let layers = |build: usize| {
        let name = format!("build{build}");
        let listed = farm.boxyard.docker(&["image", "inspect", "-f", "{{range .RootFS.Layers}}{{.}} {{end}}", &name]);
        listed.ok().split(' ').take(1 + SHARED_STEPS).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = layers(0);
    assert!((1..BUILDS).all(|build| layers(build) == first), "a shared step ran more than once");
}
