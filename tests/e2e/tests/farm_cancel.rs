//! A build whose client leaves while bytes are on their way to its worker, or from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use kit::farm::Farm;
use kit::{Throttle, mounts_under, wait_until};

/// What is moved takes a minute.
const BYTES: usize = 24 << 20;
const SLOW_BYTES_PER_SECOND: u64 = 400_000;
const FAST_BYTES_PER_SECOND: u64 = 1 << 30;
/// So soon nothing of a build is left: the gateway needs a moment to notice, and this machine may have other things to do.
const ENDS: Duration = Duration::from_secs(4);
/// Enough to be in the middle of it.
const BEGUN_BYTES: u64 = 600_000;

/// Bytes that no compression makes less, and no other test has.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    let mut random = fs::File::open("/dev/urandom").expect("there is one");
    std::io::Read::read_exact(&mut random, &mut noise).expect("read");
    noise
}

/// What is in a folder that has to be there.
fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Arguments of a build on the worker behind the wire.
fn slow_build<'a>(name: &'a str, folder: &'a Path) -> Vec<&'a str> {
    let flags = ["build", "--progress", "plain", "--network", "host", "--worker-label", "name=slow", "-t", name];
    [&flags[..], &[folder.to_str().expect("a path")]].concat()
}

/// Kills a client, and waits until what it wanted is gone.
fn leaves(client: &mut Child, name: &str, is_gone: impl Fn() -> bool) {
    client.kill().and_then(|()| client.wait()).expect("killed");
    let left = Instant::now();
    wait_until(&format!("{name} to leave nothing"), 20, || is_gone().then_some(()));
    assert!(left.elapsed() < ENDS, "{name} took {:?}", left.elapsed());
}

struct Yard {
    farm: Farm,
    wire: Throttle,
}

impl Yard {
    fn context(&self, name: &str, dockerfile: &str, file: Option<&[u8]>) -> PathBuf {
        let folder = self.farm.cluster.work_dir().join(name);
        fs::create_dir(&folder).expect("make the context");
        fs::write(folder.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
        if let Some(content) = file {
            fs::write(folder.join("file"), content).expect("write the file");
        }
        folder
    }

    /// Builds on the worker behind the wire, whose client is killed as soon as so much has `passed`. All that the build did
    /// there ends within [`ENDS`], and leaves nothing; the same build is done when it is asked for once more.
    fn leaves_in_the_middle(
        &self,
        name: &str,
        (dockerfile, file): (&str, Option<&[u8]>),
        passed: fn(&Throttle) -> u64,
    ) {
        let folder = self.context(name, dockerfile, file);
        let args = slow_build(name, &folder);
        let output = folder.with_extension("log");
        let before = passed(&self.wire);
        let mut client = self.farm.cluster.spawn_boxyard(&args, &output);
        let said = || fs::read_to_string(&output).unwrap_or_default();
        wait_until(&format!("{name} to be in the middle"), 60, || {
            assert!(client.try_wait().expect("a child").is_none(), "{name} has ended: {}", said());
            (passed(&self.wire) > before + BEGUN_BYTES).then_some(())
        });
        assert!(!self.what_is_left().is_empty(), "{name} has nothing here that could be left");
        leaves(&mut client, name, || self.what_is_left().is_empty());
        assert!(passed(&self.wire) < before + BYTES as u64 / 2, "{name} went on");
        self.wire.set_rate(FAST_BYTES_PER_SECOND);
        self.farm.boxyard(&args).ok();
        self.wire.set_rate(SLOW_BYTES_PER_SECOND);
    }

    /// Two builds that want one layer: the one waits for the other to unpack it, and its client leaves. It is gone at once,
    /// while the other goes on.
    fn leaves_while_another_unpacks(&self, image: &str) {
        let refs = self.farm.cluster.data_dir("w1").join("machine/snapshots/refs");
        let begun = |name: &str| {
            let base = format!(
                "FROM {image} AS big\nFROM busybox\nRUN --mount=from=big,target=/m wc -c /m/big; true {name}\n"
            );
            let folder = self.context(name, &base, None);
            let output = folder.with_extension("log");
            (self.farm.cluster.spawn_boxyard(&slow_build(name, &folder), &output), output)
        };
        wait_until("no build to hold layers", 30, || list(&refs).is_empty().then_some(()));
        let before = self.wire.down();
        let (mut unpacks, said) = begun("unpacks");
        wait_until("the layer to come", 60, || (self.wire.down() > before + BEGUN_BYTES).then_some(()));
        let (mut waits, _) = begun("waits");
        wait_until("the second build to hold the layer", 60, || (list(&refs).len() == 2).then_some(()));
        leaves(&mut waits, "waits", || list(&refs).len() == 1);
        let said = || fs::read_to_string(&said).unwrap_or_default();
        assert!(unpacks.try_wait().expect("a child").is_none(), "it went on: {}", said());
        assert!(self.wire.down() < before + BYTES as u64 / 2, "the layer has not come meanwhile");
        self.wire.set_rate(FAST_BYTES_PER_SECOND);
        assert!(unpacks.wait().expect("ended").success(), "{}", said());
        self.wire.set_rate(SLOW_BYTES_PER_SECOND);
    }

    /// Folders and mounts of builds on the slow worker.
    fn what_is_left(&self) -> Vec<PathBuf> {
        let data = self.farm.cluster.data_dir("w1");
        let half = list(&data.join("machine/snapshots/t")).into_iter().filter(|path| path.is_dir());
        let builds = list(&data.join("worker-w1/b"));
        let mounts = mounts_under(&data).into_iter().filter(|mount| mount.starts_with(data.join("worker-w1")));
        half.chain(builds).chain(mounts).collect()
    }
}

#[test]
fn a_build_whose_client_leaves_ends_wherever_it_is() {
    let mut farm = Farm::start(2);
    let wire = farm.slow_store("w1", SLOW_BYTES_PER_SECOND);
    for (worker, name) in [("w1", "name=slow"), ("w2", "name=fast")] {
        wait_until("the worker to be known", 30, || {
            (farm.boxyard(&["worker", "label", worker, name]).code == 0).then_some(())
        });
    }
    for image in ["big", "shared"] {
        let root = kit::Archive::new().file("big", 0o644, &noise(BYTES)).finish();
        farm.cluster.feed(&["import", "-", image], &root).ok();
    }
    let yard = Yard { farm, wire };

    let base = "FROM big AS big\nFROM busybox\nRUN --mount=from=big,target=/m wc -c /m/big\n";
    yard.leaves_in_the_middle("base", (base, None), Throttle::down);
    yard.leaves_while_another_unpacks("shared");
    yard.leaves_in_the_middle("context", ("FROM busybox\nCOPY file /\n", Some(&noise(BYTES))), Throttle::down);

    // Another worker has filled the cache.
    let mount = "--mount=type=cache,id=c,target=/c";
    let fill = format!("FROM busybox\nRUN {mount} head -c {BYTES} /dev/urandom > /c/file; touch /c/last\n");
    let folder = yard.context("fill", &fill, None);
    let fast = ["build", "--network", "host", "--worker-label", "name=fast", folder.to_str().expect("a path")];
    yard.farm.boxyard(&fast).ok();
    wait_until("the cache to be stored", 60, || {
        (!yard.farm.get("/boxyard/v1/caches")["items"].as_array().expect("a list").is_empty()).then_some(())
    });
    // It is whole when the step runs at last.
    let count = format!("FROM busybox\nRUN {mount} test -e /c/last && test $(wc -c < /c/file) = {BYTES}\n");
    yard.leaves_in_the_middle("cache", (&count, None), Throttle::down);

    let made = format!("FROM busybox\nRUN head -c {BYTES} /dev/urandom > /made\n");
    yard.leaves_in_the_middle("upload", (&made, None), Throttle::up);
    yard.farm.stop();
}
