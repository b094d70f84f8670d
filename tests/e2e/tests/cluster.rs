//! A head, nodes and workers on machines of their own (network namespaces), all over TLS.

use std::fs;
use std::path::Path;

use kit::{Cluster, wait_until};

const MIB: u64 = 1 << 20;

/// A folder with a Dockerfile of these lines.
fn context(folder: &Path, name: &str, lines: &str) -> String {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).expect("make the context");
    fs::write(folder.join("Dockerfile"), lines).expect("write the Dockerfile");
    folder.display().to_string()
}

/// `docker run --rm` on node b.
fn run_on_b<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--rm", "--label", "com.boxyard.node=nb"], words].concat()
}

#[test]
fn a_build_on_one_machine_runs_on_another() {
    let mut cluster = Cluster::start();
    cluster.join("one", &[("node", "na")]);
    // It sees the head under another address: bus, layers and streams go there.
    cluster.join_elsewhere("two", &[("node", "nb")]);
    cluster.join("three", &[("worker", "wa")]);
    cluster.feed(&["load", "-q"], &kit::busybox()).ok();
    cluster.docker(&run_on_b(&["busybox", "true"])).ok();

    // Only what node b lacks moves: the new layer, not its base, and nothing the second time.
    let lines = "FROM busybox\nRUN head -c 8388608 /dev/urandom > /big\n";
    let before = cluster.received_bytes("two");
    cluster.docker(&["build", "-t", "big", &context(&cluster.work_dir(), "big", lines)]).ok();
    cluster.docker(&run_on_b(&["big", "stat", "-c", "%s", "/big"])).says("8388608");
    let moved = cluster.received_bytes("two") - before;
    assert!((8 * MIB..9 * MIB).contains(&moved), "{moved} bytes moved to node b for a layer of 8 MiB");
    let before = cluster.received_bytes("two");
    cluster.docker(&run_on_b(&["big", "true"])).ok();
    let moved = cluster.received_bytes("two") - before;
    assert!(moved < MIB / 2, "{moved} bytes moved to node b, which lacked nothing");

    // Placement: by label, else where there is less to do.
    cluster.docker(&["run", "-d", "--name", "on-a", "--label", "com.boxyard.node=na", "big", "sleep", "600"]).ok();
    cluster.docker(&["run", "-d", "--name", "free", "big", "sleep", "600"]).ok();
    assert!(cluster.data_dir("two").join("machine/containers").read_dir().expect("node b's containers").count() == 1);
    let nowhere = cluster.docker(&["run", "--label", "com.boxyard.node=nc", "busybox", "true"]);
    assert!(nowhere.code != 0 && nowhere.stderr.contains("there is no node nc"), "{nowhere:?}");

    // Byte streams are dialled back by TLS, each direction ends by itself.
    cluster.feed(&run_on_b(&["-i", "busybox", "cat"]), b"through\n").says("through");
    cluster.feed(&["exec", "-i", "free", "sh", "-c", "cat; echo end"], b"in\n").says("in\nend");
    let file = cluster.work_dir().join("file");
    fs::write(&file, vec![7u8; 3 << 20]).expect("write a file");
    cluster.docker(&["cp", &file.display().to_string(), "free:/copied"]).ok();
    cluster.docker(&["exec", "free", "stat", "-c", "%s", "/copied"]).says("3145728");
    let back = cluster.work_dir().join("back");
    cluster.docker(&["cp", "free:/copied", &back.display().to_string()]).ok();
    assert_eq!(fs::read(&back).expect("it came back"), vec![7u8; 3 << 20]);
    cluster.docker(&["run", "--name", "talks", "--label", "com.boxyard.node=nb", "busybox", "echo", "said"]).ok();
    cluster.docker(&["logs", "talks"]).says("said");

    // The API over TCP wants a certificate of the cluster, and takes hijacked streams over it.
    cluster.docker_tls("one", None, &["run", "-i", "--rm", "busybox", "cat"], b"by tcp\n").says("by tcp");
    let without = cluster.work_dir().join("without");
    fs::create_dir(&without).expect("make a folder");
    fs::copy(cluster.data_dir("head").join("cluster/ca.pem"), without.join("ca.pem")).expect("copy the authority");
    let refused = cluster.docker_tls("one", Some(&without), &["version"], b"");
    assert!(refused.code != 0, "a client without a certificate was served: {refused:?}");

    // New certificates: the API, the layer store and the byte streams show them at once, NATS when it has read them.
    // Nobody is restarted, what is connected stays, and who comes anew is let in by the same authority.
    let names_it = |port: u16| cluster.certificate("one", port).contains("DNS:head.example");
    let ports = [2376, 7421, 7422];
    assert_eq!(ports.map(names_it), [false; 3]);
    let follower = cluster.work_dir().join("followed");
    let mut follow = cluster.spawn_docker(&["exec", "on-a", "sh", "-c", "echo begun; sleep 600"], &follower);
    let said = || fs::read_to_string(&follower).unwrap_or_default();
    wait_until("the stream to begin", 30, || said().contains("begun").then_some(()));
    cluster.renew("head.example");
    assert_eq!(ports.map(names_it), [true; 3]);
    wait_until("NATS to have read its certificate", 30, || {
        cluster.log("head", "nats").contains("Reloaded: tls").then_some(())
    });
    cluster.docker_tls("one", None, &["run", "--rm", "busybox", "echo", "renewed"], b"").says("renewed");
    cluster.kill("two");
    cluster.up("two");
    wait_until("node nb to be back", 60, || (cluster.docker(&run_on_b(&["busybox", "true"])).code == 0).then_some(()));
    assert!(matches!(follow.try_wait(), Ok(None)), "a stream of before was cut");

    for name in ["on-a", "free", "talks"] {
        cluster.docker(&["rm", "-f", name]).ok();
    }
    wait_until("the stream to end with its container", 30, || follow.try_wait().ok().flatten());
    cluster.stop();
}

#[test]
fn a_machine_that_is_lost_stops_nobody() {
    let mut cluster = Cluster::start();
    cluster.join("one", &[("node", "na")]);
    cluster.join("two", &[("worker", "wa")]);
    cluster.feed(&["load", "-q"], &kit::busybox()).ok();
    cluster.docker(&["run", "-d", "--name", "stays", "busybox", "sleep", "600"]).ok();

    // The worker dies in the middle of a build; another, which came later, does it again.
    let lines = "FROM busybox\nRUN echo first\nRUN sleep 4 && echo done > /done\n";
    let output = cluster.work_dir().join("build.log");
    let folder = context(&cluster.work_dir(), "again", lines);
    let mut build = cluster.spawn_docker(&["build", "-t", "again", &folder], &output);
    let said = || fs::read_to_string(&output).unwrap_or_default();
    wait_until("the second step to begin", 60, || said().contains("RUN sleep 4").then_some(()));
    cluster.join("three", &[("worker", "wb"), ("node", "nb")]);
    cluster.kill("two");
    let status = wait_until("the build to end on the other worker", 120, || build.try_wait().ok().flatten());
    assert!(status.success(), "{}", said());
    cluster.docker(&["run", "--rm", "again", "cat", "/done"]).says("done");

    // A node that is gone: its containers are told so; it comes back and they were never stopped.
    cluster.kill("one");
    let shown = || cluster.docker(&["ps", "--format", "{{.Status}}"]).ok().to_owned();
    wait_until("the lost node to be told", 60, || shown().contains("node na is lost").then_some(()));
    let inspected = cluster.docker(&["inspect", "-f", "{{.State.Error}}", "stays"]);
    inspected.says("node na is lost");
    let writes = ["run", "--name", "sized", "busybox", "sh", "-c", "head -c 100000 /dev/zero > /file"];
    cluster.docker(&writes).ok();
    // Its container's size is not known; all others' are.
    let sizes = cluster.docker(&["ps", "-as", "--format", "{{.Names}}: {{.Size}}"]);
    sizes.says("stays: 0B").says("sized: 100kB (virtual ");
    cluster.docker(&["inspect", "-s", "-f", "{{.SizeRw}}", "stays"]).says("<nil>");
    cluster.docker(&["system", "df", "-v"]).says("stays").says("sized");
    cluster.docker(&["volume", "ls"]).ok();
    cluster.docker(&["rm", "sized"]).ok();
    cluster.up("one");
    let shown = || cluster.docker(&["ps", "--format", "{{.Status}}"]).ok().to_owned();
    wait_until("the node to be back", 60, || {
        let text = shown();
        (text.starts_with("Up") && !text.contains("lost")).then_some(())
    });
    cluster.docker(&["exec", "stays", "echo", "alive"]).says("alive");
    cluster.docker(&["rm", "-f", "stays"]).ok();
    cluster.up("two");

    // A member that was put out: NATS and the layer store know it no more, and say so.
    cluster.revoke("worker", "wb");
    wait_until("the refusal of worker wb to be logged", 30, || {
        let log = cluster.log("head", "nats");
        log.lines().any(|line| line.contains("authentication error") && line.contains("worker-wb")).then_some(())
    });
    cluster.stop();
}
