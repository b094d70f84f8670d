//! Memory: what an idle engine holds, and what a running container's parent holds.

use std::fs;
use std::time::Duration;

use kit::processes_naming;

use crate::pair::{Goal, Pair, Report, Side};

pub fn measure(pair: &Pair, report: &mut Report) {
    let name = "idle memory, PSS";
    if report.wants(name) {
        // A fresh pair would hold less; this one has worked, and has had a minute to rest.
        std::thread::sleep(Duration::from_secs(60));
        let values = [0, 1].map(|index| megabytes(&all_processes(&pair.sides[index]), "Pss:"));
        report.row(name, values, "MB", Goal::Below(120.0));
    }
    for (name, field) in [("shim of a container, PSS", "Pss:"), ("shim of a container, RSS", "Rss:")] {
        if report.wants(name) {
            let values = [0, 1].map(|index| shim(&pair.sides[index], field));
            report.row(name, values, "MB", Goal::Below(4.0));
        }
    }
}

/// Every process of the engine: those that name its folder, and their children.
pub fn all_processes(side: &Side) -> Vec<i32> {
    let folders = match side {
        Side::Docker(dockerd) => vec![dockerd.folder().to_owned()],
        Side::Boxyard(boxyard) => vec![boxyard.data_dir().to_owned(), boxyard.work_dir().with_file_name("")],
    };
    let mut pids: Vec<i32> =
        folders.iter().flat_map(|folder| processes_naming(&folder.to_string_lossy())).map(|(pid, _)| pid).collect();
    let mut at = 0;
    while at < pids.len() {
        pids.extend(children(pids[at]));
        at += 1;
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

pub fn megabytes(pids: &[i32], field: &str) -> f64 {
    let kilobytes: f64 = pids
        .iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok())
        .filter_map(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix(field))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        })
        .sum();
    kilobytes * 1024.0 / 1e6
}

/// The parent of a container's first process.
fn shim(side: &Side, field: &str) -> f64 {
    side.docker(&["run", "-d", "--name", "weighed", "busybox", "sleep", "1000"]).ok();
    let pid = side.docker(&["inspect", "-f", "{{.State.Pid}}", "weighed"]).ok().to_owned();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the container runs");
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let parent: i32 = rest.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a parent");
    let value = megabytes(&[parent], field);
    side.docker(&["rm", "-f", "weighed"]).ok();
    value
}
