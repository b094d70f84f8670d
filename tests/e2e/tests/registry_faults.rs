//! kill -9 of a service in the middle of a pull and of a push over a slow wire: the client gets its image or a clear
//! error, there is never half an image, afterwards the same command works, and nothing that was begun stays on the disk.

use std::path::Path;
use std::process::{Child, Stdio};

use kit::{Boxyard, Options, Registry, Throttle, client, wait_until};

const LAYERS: usize = 3;
const LAYER_BYTES: usize = 3 << 20;
/// So much has passed when the service is killed: the command is in its middle.
const KILLED_AT_BYTES: u64 = 2 << 20;
const SLOW_BYTES_PER_SECOND: u64 = 2 << 20;
const FAST_BYTES_PER_SECOND: u64 = 1 << 30;
/// What may be left beside the blobs: a few files of the store's own.
const SLACK_BYTES: u64 = 256 << 10;

/// Services of which each is killed once in a pull and once in a push. What a killed gateway leased runs out by itself,
/// which takes a minute: it comes first, and the minute passes while the others are killed.
const KILLED: [&str; 3] = ["boxyard-gateway", "boxyard-registry-sync", "boxyard-layer-store"];

struct Yard {
    boxyard: Boxyard,
    registry: Registry,
    wire: Throttle,
}

impl Yard {
    fn start() -> Self {
        let registry = Registry::start();
        let wire = Throttle::new(registry.port(), FAST_BYTES_PER_SECOND);
        let boxyard = Boxyard::start(Options::default());
        boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
        // A killed service may cost others an honest ERROR line; what must hold is checked by behaviour.
        boxyard.expect_error("");
        Self { boxyard, registry, wire }
    }

    /// An image of random layers, so that no layer is known from before. Gives the sum of its files.
    fn build(&self, tag: &str) -> String {
        let folder = self.boxyard.work_dir().join("context");
        std::fs::create_dir_all(&folder).expect("make the context");
        let mut dockerfile = "FROM busybox\n".to_owned();
        for layer in 0..LAYERS {
            let mut bytes = vec![0; LAYER_BYTES];
            let mut random = std::fs::File::open("/dev/urandom").expect("the machine has /dev/urandom");
            std::io::Read::read_exact(&mut random, &mut bytes).expect("it gives bytes");
            std::fs::write(folder.join(format!("file{layer}")), bytes).expect("write a file");
            dockerfile += &format!("COPY file{layer} /\n");
        }
        std::fs::write(folder.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
        self.boxyard.docker(&["build", "-q", "-t", tag, &folder.to_string_lossy()]).ok();
        self.sum(tag)
    }

    fn sum(&self, tag: &str) -> String {
        let line = "cat /file* | sha256sum";
        self.boxyard.docker(&["run", "--rm", tag, "sh", "-c", line]).ok().to_owned()
    }

    /// Begins a command and kills the service in its middle. Gives the command's end.
    fn interrupted(&mut self, args: &[&str], service: &str, passed: fn(&Throttle) -> u64) -> std::process::Output {
        let before = passed(&self.wire);
        self.wire.set_rate(SLOW_BYTES_PER_SECOND);
        let mut child: Child = client(self.boxyard.socket())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker starts");
        wait_until("half of the layers", 60, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("{args:?} ended before its middle: {status}");
            }
            (passed(&self.wire) - before > KILLED_AT_BYTES).then_some(())
        });
        assert!(self.boxyard.kill_service(service) > 0, "{service} does not run");
        self.wire.set_rate(FAST_BYTES_PER_SECOND);
        let output = child.wait_with_output().expect("docker ends");
        self.boxyard.wait_ready();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.trim().is_empty(), "{service}: {args:?} failed and did not say why");
        }
        output
    }

    fn remove_all(&self) {
        let images = self.boxyard.docker(&["images", "-q", "--no-trunc"]).stdout;
        for id in images.lines() {
            self.boxyard.docker(&["rmi", "-f", id]);
        }
        self.boxyard.docker(&["image", "prune", "-af"]).ok();
        self.boxyard.docker(&["builder", "prune", "-f"]);
        assert_eq!(self.boxyard.docker(&["images", "-aq"]).ok(), "");
    }

    /// Waits until the layer store holds no more than it did before.
    fn is_clean(&self, service: &str) {
        let store = self.boxyard.data_dir().join("store");
        wait_until(&format!("the store to be empty again after {service} was killed"), 240, || {
            (bytes_of_blobs(&store) < SLACK_BYTES).then_some(())
        });
    }
}

fn bytes_of_blobs(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes_of_blobs(&entry.path()),
            _ => entry.metadata().map_or(0, |file| file.len()),
        })
        .sum()
}

fn during_a_pull(yard: &mut Yard, service: &str) {
    let tag = format!("{}/faults/pulled", yard.registry.host());
    let sum = yard.build(&tag);
    yard.boxyard.docker(&["push", "-q", &tag]).ok();
    yard.remove_all();
    yard.is_clean("nothing");

    let slow = format!("{}/faults/pulled", yard.wire.host());
    let output = yard.interrupted(&["pull", &slow], service, Throttle::down);
    let known = yard.boxyard.docker(&["images", "-q", &slow]).ok().to_owned();
    assert_eq!(output.status.success(), !known.is_empty(), "{service}: {output:?}");
    if output.status.success() {
        assert_eq!(yard.sum(&slow), sum, "{service}: the image is whole");
    }
    yard.boxyard.docker(&["pull", &slow]).says(&slow);
    assert_eq!(yard.sum(&slow), sum, "{service}: the image is whole after it was pulled again");
    yard.remove_all();
}

fn during_a_push(yard: &mut Yard, service: &str) {
    yard.boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let slow = format!("{}/faults/pushed", yard.wire.host());
    let sum = yard.build(&slow);
    let output = yard.interrupted(&["push", &slow], service, Throttle::up);
    if !output.status.success() {
        yard.boxyard.docker(&["push", &slow]).says("latest: digest: sha256:");
    }
    yard.remove_all();
    let direct = format!("{}/faults/pushed", yard.registry.host());
    yard.boxyard.docker(&["pull", "-q", &direct]).ok();
    assert_eq!(yard.sum(&direct), sum, "{service}: what was acknowledged is in the registry");
    yard.remove_all();
}

#[test]
fn a_service_is_killed_in_a_pull_and_in_a_push() {
    let mut yards = Vec::new();
    for service in KILLED {
        let mut yard = Yard::start();
        during_a_pull(&mut yard, service);
        during_a_push(&mut yard, service);
        yards.push((service, yard));
    }
    for (service, yard) in yards {
        yard.is_clean(service);
        yard.boxyard.stop();
    }
}
