//! Removals beside builds and loads that share their layers: neither breaks the other, and what goes is gone from the
//! disk as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kit::{Engine, Kind, Output, client, run_command, wait_until};

/// Small enough for a quick flow, big enough to be seen on the disk.
const LAYER_BYTES: u64 = 24 << 20;

fn start() -> Engine {
    let engine = Engine::start(Kind::Boxyard);
    engine.load_busybox();
    // A running container keeps the base image from every prune; `rmi -f` is not asked to remove it.
    engine.docker(&["run", "-d", "--name", "anchor", "busybox", "sleep", "1000"]).ok();
    engine
}

/// Removes all that may be removed, again and again, while `work` runs. Removals may be refused, but only in Docker's words.
fn beside_removals(engine: &Engine, work: impl FnOnce()) -> u32 {
    let (done, socket) = (AtomicBool::new(false), engine.socket());
    let base = engine.docker(&["images", "-q", "--no-trunc", "busybox"]).ok().to_owned();
    let run = |args: &[&str]| run_command(&mut client(socket), args, None);
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) {
                let listed = run(&["images", "-aq", "--no-trunc"]);
                let mut ids: Vec<&str> = listed.lines();
                ids.retain(|id| *id != base);
                ids.dedup();
                if !ids.is_empty() {
                    refused_in_words(&run(&[&["rmi", "-f"], ids.as_slice()].concat()));
                }
                run(&["image", "prune", "-af"]).ok();
                run(&["system", "prune", "-af"]).ok();
                rounds += 1;
            }
            rounds
        });
        // Also when the work fails, the loop must end.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        let rounds = removing.join().expect("removals go on");
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
        rounds
    })
}

fn refused_in_words(output: &Output) {
    for line in output.stderr.lines().filter(|line| !line.trim().is_empty()) {
        let known =
            ["No such image: ", "conflict: unable to delete ", "conflict: unable to remove repository reference"];
        assert!(known.iter().any(|words| line.contains(words)), "a removal was refused oddly: {line}\n{output}");
    }
}

#[test]
fn builds_beside_removals() {
    let engine = start();
    let dockerfile = |number: u32| {
        format!(
            "FROM busybox\nRUN echo shared > /shared\nENV SHARED=1\nRUN sleep 0.2; cat /shared\n\
             RUN echo {number} > /own; sleep 0.2\nRUN cat /shared /own\n"
        )
    };
    let rounds = beside_removals(&engine, || {
        for number in 0..12 {
            // Twice the same, so that the cache is used while it goes.
            let built = engine.docker_fed(&["build", "-t", "made", "-"], dockerfile(number / 2).as_bytes());
            built.says("Successfully built ").says("Successfully tagged made:latest");
        }
    });
    assert!(rounds > 2, "{rounds} rounds of removals are too few to tell");
    engine.docker_fed(&["build", "-t", "made", "-"], dockerfile(99).as_bytes()).ok();
    assert_eq!(engine.docker(&["run", "--rm", "made", "cat", "/shared", "/own"]).ok(), "shared\n99");
    engine.docker(&["rm", "-f", "anchor"]).ok();
    engine.stop();
}

#[test]
fn loads_beside_removals() {
    let engine = start();
    let dockerfile = b"FROM busybox\nRUN echo one > /one\nRUN dd if=/dev/urandom of=/two bs=1M count=4 2>/dev/null\n";
    engine.docker_fed(&["build", "-t", "moved", "-"], dockerfile).ok();
    engine.shell("docker save -o moved.tar moved").ok();
    let rounds = beside_removals(&engine, || {
        for _ in 0..15 {
            engine.shell("docker load -i moved.tar").says("Loaded image: moved:latest");
        }
    });
    assert!(rounds > 2, "{rounds} rounds of removals are too few to tell");
    engine.shell("docker load -i moved.tar").says("Loaded image: moved:latest");
    assert_eq!(engine.docker(&["run", "--rm", "moved", "sh", "-c", "cat /one; wc -c < /two"]).ok(), "one\n4194304");
    engine.docker(&["rm", "-f", "anchor"]).ok();
    engine.stop();
}

/// What a removal says that it frees, the disk has again; contexts, failed builds and unpacked copies stay not either.
#[test]
fn the_disk_has_what_was_removed() {
    let engine = start();
    let used = || disk_usage(engine.boxyard().data_dir());
    wait_until("an idle data folder", 60, || {
        let before = used();
        std::thread::sleep(Duration::from_millis(500));
        (used() == before).then_some(())
    });
    let before = used();
    let big = format!("head -c {LAYER_BYTES} /dev/urandom");
    let dockerfile = format!("FROM busybox\nCOPY filler /filler\nRUN {big} > /big\n");
    engine.write("b/Dockerfile", dockerfile);
    engine.shell(&format!("{big} > b/filler")).ok();
    engine.shell("docker build -t big b").ok();
    let failing = format!("FROM busybox\nRUN {big} > /left; exit 1\n");
    engine.docker_fed(&["build", "--force-rm", "-"], failing.as_bytes()).fails(1, "non-zero code: 1");
    engine.shell("docker save -o big.tar big && docker load -q -i big.tar").ok();
    assert_eq!(engine.docker(&["run", "--rm", "big", "sh", "-c", "cat /big | wc -c"]).ok(), LAYER_BYTES.to_string());
    let full = used();
    assert!(full >= before + 2 * LAYER_BYTES, "{full} after {before}");

    engine.docker(&["tag", "big", "again"]).ok();
    engine.docker(&["rmi", "big"]).ok();
    let reclaimed =
        engine.api("POST", "/v1.41/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", "").json();
    let bytes = reclaimed["SpaceReclaimed"].as_u64().expect("a number");
    assert!((2 * LAYER_BYTES..3 * LAYER_BYTES).contains(&bytes), "{reclaimed}");
    let mut after = 0;
    for _ in 0..300 {
        after = used();
        // The copies unpacked for builds and containers go too: all but the kept context, the log and the database.
        if after + bytes <= full && after < before + LAYER_BYTES + LAYER_BYTES / 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(after + bytes <= full, "{after} of {full}: {bytes} bytes were said to be free");
    assert!(after < before + LAYER_BYTES + LAYER_BYTES / 4, "{after} after {before}: something stays");
    engine.docker(&["rm", "-f", "anchor"]).ok();
    engine.stop();
}

/// Bytes on the disk of all files below a folder.
fn disk_usage(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // Files come and go while this looks.
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        sum += if metadata.is_dir() { disk_usage(&entry.path()) } else { metadata.blocks() * 512 };
    }
    sum
}
