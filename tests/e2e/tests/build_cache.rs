//! What builds keep is held under caps while they go on, and what is asked for goes.

use std::fs;

use kit::{Boxyard, Client, Options, wait_until};

const CACHE_CAP: u64 = 3_000_000;
const WORKER_CAP: u64 = 5_000_000;

/// A build of the graph builder whose step leaves a megabyte that is this number's own; its image goes at once, so that
/// only the step's result keeps the layer. Says whether the step was found in the cache.
fn was_found(boxyard: &Boxyard, number: u32) -> bool {
    let context = boxyard.work_dir().join(format!("c{number}"));
    fs::create_dir_all(&context).expect("a folder");
    let dockerfile = format!("FROM busybox\nRUN echo {number} && head -c 1000000 /dev/urandom > /filling\n");
    fs::write(context.join("Dockerfile"), dockerfile).expect("written");
    let name = format!("filled:{number}");
    let built = boxyard.boxyard(&["build", "--progress=plain", "-t", &name, context.to_str().expect("a path")]);
    built.ok();
    boxyard.docker(&["rmi", &name]).ok();
    // FROM always is.
    [built.stdout, built.stderr].concat().lines().filter(|line| line.ends_with(" CACHED")).count() > 1
}

/// Bytes of what the results of steps take besides what images share.
fn cached(boxyard: &Boxyard) -> u64 {
    Client::new(boxyard.socket()).get_json("/system/df")["BuilderSize"].as_u64().expect("a number")
}

/// Bytes of content that are unpacked on the machine.
fn unpacked(boxyard: &Boxyard) -> u64 {
    let records = fs::read_dir(boxyard.data_dir().join("machine/snapshots/ids")).expect("layers");
    let bytes = |text: String| text.split_whitespace().nth(1).and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
    records.flatten().map(|record| bytes(fs::read_to_string(record.path()).unwrap_or_default())).sum()
}

#[test]
fn caps_are_held_while_builds_go_on_and_a_prune_takes_what_it_names() {
    let flags = vec![format!("--build-cache-bytes={CACHE_CAP}"), format!("--worker-cache-bytes={WORKER_CAP}")];
    let boxyard = Boxyard::start(Options { flags, ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    for number in 1..=6 {
        assert!(!was_found(&boxyard, number), "{number} is new");
    }
    let under_cap = || {
        wait_until("the cache to be under its cap", 30, || Some(cached(&boxyard)).filter(|bytes| *bytes <= CACHE_CAP))
    };
    under_cap();
    assert!(cached(&boxyard) >= 1_000_000, "the newest are kept: {}", cached(&boxyard));
    wait_until("the worker to be under its cap", 30, || (unpacked(&boxyard) <= WORKER_CAP).then_some(()));
    assert!(was_found(&boxyard, 6), "what was used last is found");
    assert!(!was_found(&boxyard, 1), "what was used longest ago is gone");

    let prune = |args: &[&str]| boxyard.boxyard(&[&["build", "prune", "-f"], args].concat());
    let before = under_cap();
    prune(&["--dry-run", "--filter", "description=echo 6"]).says("Total that would be reclaimed: 1.0");
    assert_eq!(cached(&boxyard), before, "nothing went");
    prune(&["--filter", "type=exec.cachemount"]).says("Total: 0B");
    prune(&["--filter", "unused-for=1h"]).says("Total: 0B");
    prune(&["--filter", "description=echo 6"]).says("Total: 1.0");
    assert!(!was_found(&boxyard, 6), "it was removed");
    boxyard
        .docker(&["builder", "prune", "-f", "--filter", "nosuch=x"])
        .fails(1, "failed to prune build cache: invalid filter 'nosuch'");
    boxyard.docker(&["builder", "prune", "-af"]).says("Total reclaimed space: 2.0");
    assert_eq!(cached(&boxyard), 0);
    boxyard.stop();
}
