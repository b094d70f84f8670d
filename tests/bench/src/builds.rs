//! The classic builder with 20 RUN steps, cold and from the cache, through the docker command.

use crate::pair::{Goal, Pair, Report};

pub fn measure(pair: &Pair, report: &mut Report) {
    let steps: String = (1..=20).map(|step| format!("RUN echo {step} > /file{step}\n")).collect();
    let dockerfile = format!("FROM busybox\n{steps}");
    let name = "20 RUN steps, cold";
    if report.wants(name) {
        let values = pair.medians(3, |_, side| {
            side.docker_fed(&["build", "-q", "--no-cache", "-"], Some(dockerfile.as_bytes())).ok();
        });
        report.row(name, values, "ms", Goal::Faster(4.0));
    }
    let name = "20 RUN steps, cached";
    if report.wants(name) {
        let values = pair.medians(15, |_, side| {
            side.docker_fed(&["build", "-q", "-"], Some(dockerfile.as_bytes())).ok();
        });
        report.row(name, values, "ms", Goal::Faster(1.0));
    }
}
