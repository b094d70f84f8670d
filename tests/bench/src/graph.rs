//! BuildKit's Dockerfiles by the docker command that speaks to BuildKit, beside BuildKit in dockerd, and beside buildah.

use std::path::{Path, PathBuf};

use crate::api;
use crate::buildah::{BASE, Buildah};
use crate::pair::{Goal, Pair, Report, Side};
use crate::transfers::{middle, timed};

const TWENTY_COLD: &str = "graph: 20 RUN steps, cold";
const TWENTY_CACHED: &str = "graph: 20 RUN steps, cached";
const COMMAND: &str = "graph: 20 cached, under 60 ms";
const API: &str = "graph: 20 cached, by the API";
const STAGES: &str = "graph: 4 independent stages";
/// What one of the stages counts to: about half a second of one core.
const COUNT: u32 = 300_000;

pub fn measure(pair: &Pair, report: &mut Report) {
    if ![TWENTY_COLD, TWENTY_CACHED, COMMAND, API, STAGES].into_iter().any(|row| report.wants(row)) {
        return;
    }
    let buildah = Buildah::new(pair.folder(0));
    let folder = pair.folder(0).join("graph");
    std::fs::create_dir_all(&folder).expect("make the contexts");
    let peers = Peers { pair, buildah: &buildah };
    let steps: String = (1..=20).map(|step| format!("RUN echo {step} > /file{step}\n")).collect();
    let dockerfile = format!("FROM {BASE}\n{steps}");
    let twenty = context(&folder, "twenty", &dockerfile);
    if report.wants(TWENTY_COLD) {
        let taken = peers.medians(3, &twenty, &["--no-cache"], &["--layers", "--no-cache"]);
        both(report, TWENTY_COLD, taken, 6.0);
    }
    if report.wants(TWENTY_CACHED) || report.wants(COMMAND) {
        let taken = peers.medians(11, &twenty, &[], &["--layers"]);
        both(report, TWENTY_CACHED, taken, 1.0);
        report.row_beside("BuildKit", COMMAND, [taken[0], taken[2]], "ms", Goal::Below(60.0));
    }
    if report.wants(API) {
        report.row_beside("BuildKit", API, api::cached(pair, &dockerfile, 21), "ms", Goal::Faster(2.0));
    }
    if report.wants(STAGES) {
        let stages = context(&folder, "stages", &independent());
        let taken = peers.medians(3, &stages, &["--no-cache"], &["--layers", "--no-cache", "--jobs", "4"]);
        both(report, STAGES, taken, 1.0);
    }
    drop(buildah);
}

fn both(report: &mut Report, name: &'static str, [buildkit, buildah, ours]: [f64; 3], goal: f64) {
    report.row_beside("BuildKit", name, [buildkit, ours], "ms", Goal::Faster(goal));
    report.row_beside("buildah", name, [buildah, ours], "ms", Goal::None);
}

/// Four stages that count, and a last one that takes a file of each.
fn independent() -> String {
    let stage = |number: u32| {
        format!(
            "FROM {BASE} AS stage{number}\n\
             RUN i=0; while [ $i -lt {COUNT} ]; do i=$((i+1)); done; echo {number} > /out{number}\n"
        )
    };
    let copy = |number: u32| format!("COPY --from=stage{number} /out{number} /\n");
    let stages: String = (1..=4).map(stage).collect();
    let copies: String = (1..=4).map(copy).collect();
    format!("{stages}FROM {BASE}\n{copies}")
}

/// A context that holds nothing but its Dockerfile.
fn context(folder: &Path, name: &str, dockerfile: &str) -> PathBuf {
    let context = folder.join(name);
    std::fs::create_dir_all(&context).expect("make the context");
    std::fs::write(context.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
    context
}

struct Peers<'a> {
    pair: &'a Pair,
    buildah: &'a Buildah,
}

impl Peers<'_> {
    /// BuildKit's, buildah's and Boxyard's median seconds, measured in turn; the first round does not count.
    fn medians(&self, rounds: usize, context: &Path, docker: &[&str], buildah: &[&str]) -> [f64; 3] {
        let mut taken = [Vec::new(), Vec::new(), Vec::new()];
        let docker = [&["build", "-q"], docker, &["."]].concat();
        let build = |side: &Side| {
            side.buildkit(context, &docker).ok();
        };
        for round in 0..=rounds {
            let seconds = [
                timed(|| build(&self.pair.sides[0])),
                timed(|| self.buildah.build(context, buildah)),
                timed(|| build(&self.pair.sides[1])),
            ];
            if round > 0 {
                taken.iter_mut().zip(seconds).for_each(|(taken, seconds)| taken.push(seconds));
            }
        }
        taken.map(middle)
    }
}
