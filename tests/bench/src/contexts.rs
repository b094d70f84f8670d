//! A context of 200 MB in 20,000 files: sent whole, unchanged, and with one file changed. `boxyard build` beside the docker
//! command and BuildKit.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::pair::{Goal, Pair, Report, Side};
use crate::programs::Programs;
use crate::transfers::{middle, timed};

const COLD: &str = "context of 20,000 files, cold";
const UNCHANGED: &str = "context of 20,000 files, unchanged";
const CHANGED: &str = "context of 20,000 files, one changed";
const ROUNDS: usize = 3;

pub fn measure(pair: &Pair, report: &mut Report) {
    if ![COLD, UNCHANGED, CHANGED].into_iter().any(|row| report.wants(row)) {
        return;
    }
    let mut taken: [[Vec<f64>; 2]; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (index, side) in pair.sides.iter().enumerate() {
            let context = pair.folder(index).join("context");
            fill(&context);
            for (row, seconds) in [timed(|| build(side, &context)), timed(|| build(side, &context)), {
                fs::write(context.join("folder7/file7"), "changed").expect("change a file");
                timed(|| build(side, &context))
            }]
            .into_iter()
            .enumerate()
            {
                taken[row][index].push(seconds);
            }
            fs::remove_dir_all(&context).expect("remove the context");
            kit::run_command(&mut Command::new("sync"), &[] as &[&str], None).ok();
        }
    }
    let [cold, unchanged, changed] = taken.map(|sides| sides.map(middle));
    for (name, values) in [(COLD, cold), (UNCHANGED, unchanged), (CHANGED, changed)] {
        if report.wants(name) {
            report.row_beside("BuildKit", name, values, "ms", Goal::Faster(1.0));
        }
    }
}

fn build(side: &Side, context: &Path) {
    match side {
        Side::Docker(_) => side.buildkit(context, &["build", "-q", "-t", "context", "."]).ok().len(),
        Side::Boxyard(boxyard) => boxyard.boxyard_in(context, &["build", "-q", "-t", "context", "."]).ok().len(),
    };
}

/// 200 folders of 100 files of 10 kB, new ones each time.
fn fill(context: &Path) {
    let mut programs = Programs::new();
    for folder in 0..200 {
        let folder = context.join(format!("folder{folder}"));
        fs::create_dir_all(&folder).expect("make the context");
        for file in 0..100 {
            fs::write(folder.join(format!("file{file}")), programs.piece(10_000)).expect("write a file");
        }
    }
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY . /\n").expect("write the Dockerfile");
}
