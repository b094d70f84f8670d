//! The cluster in containers: its image is built by a Boxyard, docker-compose starts it on a dockerd, and it does what
//! a cluster on machines does.

use std::path::{Path, PathBuf};

use kit::{Compose, Engine, Kind, wait_until};
use tempfile::TempDir;

/// The image, built with the project's own script on a Boxyard, as an archive.
fn image(folder: &Path) -> PathBuf {
    let builder = Engine::start(Kind::Boxyard);
    builder.docker(&["import", &kit::debian_root().display().to_string(), "debian"]).ok();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/image.sh");
    let programs = kit::program().with_file_name("");
    let line = format!("BASE=debian BOXYARD_BIN_DIR={} {}", programs.display(), script.display());
    builder.shell(&line).says("Successfully tagged boxyard:latest");
    let archive = folder.join("boxyard.tar");
    builder.docker(&["save", "-o", &archive.display().to_string(), "boxyard"]).ok();
    builder.stop();
    archive
}

fn build(cluster: &Compose, name: &str) {
    let lines = format!("FROM busybox\nRUN echo {name} > /made && ip route | grep -q default\nCMD cat /made\n");
    cluster.feed(&["build", "-t", name, "-"], lines.as_bytes()).says(&format!("Successfully tagged {name}:latest"));
}

#[test]
fn a_cluster_in_containers() {
    let folder = TempDir::new().expect("a folder");
    let archive = image(folder.path());
    let cluster = Compose::start(&archive);
    std::fs::remove_file(&archive).expect("the archive is dockerd's now");

    cluster.feed(&["load", "-q"], &kit::busybox()).ok();
    build(&cluster, "first");
    for node in ["node-1", "node-2"] {
        let label = format!("com.boxyard.node={node}");
        let on_node = |name: &str, rest: &[&str]| {
            let name = format!("{name}-{node}");
            let all = [&["run", "--label", &label, "--name", &name], rest].concat();
            cluster.docker(&all).ok().to_owned()
        };
        assert_eq!(on_node("once", &["first"]), "first");
        cluster.docker(&["logs", &format!("once-{node}")]).says("first");
        // Its own group of processes, in the node's, with its limit.
        let limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true";
        assert_eq!(on_node("small", &["-m", "64m", "busybox", "sh", "-c", limit]), (64 << 20).to_string());
        // It does not heed SIGTERM.
        on_node("long", &["-d", "--stop-timeout", "1", "--restart", "on-failure", "busybox", "sleep", "600"]);
        on_node("told", &["-d", "busybox", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"]);
        cluster.docker(&["exec", &format!("long-{node}"), "ip", "addr", "show", "eth0"]).says("inet 172.");
    }
    // A service sees its own secrets, no other's.
    let secrets = cluster.compose(&["exec", "-T", "node-1", "ls", "/var/lib/boxyard/secrets"]);
    assert_eq!(secrets.ok(), "ca.pem\npassword\ntoken");

    // A machine is switched off: what ran there is told as ended, and started again where it is to be.
    let status = |name: &str| {
        cluster.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", name])
    };
    cluster.compose(&["kill", "-s", "KILL", "node-1"]).ok();
    cluster.compose(&["start", "node-1"]).ok();
    let came = |name: &str, wanted: &str| {
        wait_until(&format!("{name} to be {wanted}"), 60, || status(name).stdout.starts_with(wanted).then_some(()));
    };
    came("told-node-1", "exited 137 0");
    came("long-node-1", "running 0 1");
    cluster.docker(&["exec", "long-node-1", "echo", "alive"]).says("alive");
    assert_eq!(cluster.docker(&["start", "-a", "once-node-1"]).ok(), "first");

    // A machine is shut down: its containers are asked to end before.
    cluster.compose(&["stop", "node-2", "worker-1"]).ok();
    came("told-node-2", "exited 7 0");
    build(&cluster, "second");
    cluster.compose(&["start", "node-2", "worker-1"]).ok();
    wait_until("node-2 to be back", 60, || (cluster.docker(&["start", "-a", "once-node-2"]).code == 0).then_some(()));

    let all = cluster.docker(&["ps", "-aq"]);
    cluster.docker(&[&["rm", "-f"], &all.lines()[..]].concat()).ok();
    cluster.stop();
}
