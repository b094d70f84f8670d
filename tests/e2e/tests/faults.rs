//! kill -9 of each service at an observed moment of a load, a build and a run: the client gets a result or a
//! clear error, nothing acknowledged is lost, and after the supervisor's restart everything works.

use std::io::Write;
use std::process::Stdio;

use kit::{Boxyard, Client, Engine, Kind, Options, SERVICES, client, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// After a fault, until the supervisor has restarted the service: the whole way works again.
fn works_again(boxyard: &mut Boxyard, after: &str) {
    boxyard.wait_ready();
    wait_until(&format!("a run after {after}"), 60, || {
        let run = boxyard.docker(&["run", "--rm", "busybox", "echo", "again"]);
        (run.code == 0 && run.stdout == "again\n").then_some(())
    });
    boxyard.docker(&["images"]).says("busybox");
}

fn start() -> Boxyard {
    let boxyard = Boxyard::start(Options::default());
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    for service in SERVICES.iter().chain(["nats-server"].iter()) {
        boxyard.expect_error(service);
    }
    // A killed service may cost others an honest ERROR line; what must hold is checked by behaviour.
    boxyard.expect_error("");
    boxyard
}

fn all_services() -> impl Iterator<Item = &'static str> {
    SERVICES.into_iter().chain(["nats-server"])
}

/// A layer that is not unpacked yet comes from the store; it is not the image that is blamed where that is away.
#[test]
fn a_start_without_the_store() {
    let mut boxyard = start();
    let pid_of = |program| Pid::from_raw(boxyard.pids_of(program)[0]);
    let (supervisor, node) = (pid_of("boxyard"), pid_of("boxyard-node"));
    let tell = |pid, signal| kill(pid, signal).expect("it runs");
    // Neither unpacks the node it ahead, nor does anybody start the store anew.
    tell(node, Signal::SIGSTOP);
    let imported = boxyard.feed(&["import", "-", "fetched-late"], &kit::busybox());
    tell(supervisor, Signal::SIGSTOP);
    let killed = boxyard.kill_service("boxyard-layer-store");
    tell(node, Signal::SIGCONT);
    let created = boxyard.docker(&["create", "--name", "early", "fetched-late", "true"]);
    let answer = Client::new(boxyard.socket()).send("POST", "/v1.41/containers/early/start", "application/json", "");
    tell(supervisor, Signal::SIGCONT);
    imported.ok();
    created.ok();
    assert_eq!(killed, 1);
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.message().as_str()), (503, "talking to the layer store"));
    boxyard.docker(&["rm", "early"]).ok();
    works_again(&mut boxyard, "the store was away");
    boxyard.stop();
}

#[test]
fn during_a_run() {
    let mut boxyard = start();
    for service in all_services() {
        let name = format!("run-{service}");
        let running = client(boxyard.socket())
            .args(["run", "--name", &name, "busybox", "sh", "-c", "echo started; sleep 3; echo ended; exit 7"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker starts");
        wait_until("the container to run", 30, || {
            boxyard.docker(&["logs", &name]).stdout.contains("started").then_some(())
        });
        assert!(boxyard.kill_service(service) > 0, "{service} does not run");
        let output = running.wait_with_output().expect("docker ends");
        assert_ne!(output.status.code(), Some(0), "{service}: the run must end with the container's 7 or an error");
        works_again(&mut boxyard, service);
        wait_until(&format!("the exit status of the container that outlived {service}"), 30, || {
            let state = boxyard.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &name]);
            (state.stdout == "exited 7\n").then_some(())
        });
        assert_eq!(boxyard.docker(&["logs", &name]).stdout, "started\nended\n", "{service}: the log is whole");
    }
    boxyard.stop();
}

#[test]
fn during_a_build() {
    let mut boxyard = start();
    for service in all_services() {
        let tag = format!("built-{service}");
        let mut building = client(boxyard.socket())
            .args(["build", "--no-cache", "-t", &tag, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker starts");
        let dockerfile = b"FROM busybox\nRUN echo one > /one\nRUN sleep 3; echo two > /two\n";
        building.stdin.take().expect("piped").write_all(dockerfile).expect("docker reads");
        let step = "sleep 3; echo two";
        wait_until("the blocking step", 60, || {
            kit::processes_naming(step).iter().any(|(_, line)| line.contains("/bin/sh")).then_some(())
        });
        assert!(boxyard.kill_service(service) > 0, "{service} does not run");
        let output = building.wait_with_output().expect("docker ends");
        works_again(&mut boxyard, service);
        if output.status.success() {
            boxyard.docker(&["run", "--rm", &tag, "cat", "/one", "/two"]).says("one\ntwo");
        } else {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!text.trim().is_empty(), "{service}: a failed build says why");
            boxyard.feed(&["build", "-t", &tag, "-"], dockerfile).ok();
        }
    }
    boxyard.stop();
}

#[test]
fn during_a_load() {
    let mut boxyard = start();
    let archive = {
        boxyard.docker(&["tag", "busybox", "loaded:1"]).ok();
        kit::busybox()
    };
    for service in all_services() {
        let mut loading = client(boxyard.socket())
            .args(["load", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker starts");
        let mut pipe = loading.stdin.take().expect("piped");
        let half = archive.len() / 2;
        // More than a pipe holds: when this returns, the engine has taken most of it, and waits for the rest.
        pipe.write_all(&archive[..half]).expect("the engine reads");
        assert!(boxyard.kill_service(service) > 0, "{service} does not run");
        let _ = pipe.write_all(&archive[half..]);
        drop(pipe);
        let output = loading.wait_with_output().expect("docker ends");
        works_again(&mut boxyard, service);
        if !output.status.success() {
            assert!(!output.stderr.is_empty(), "{service}: a failed load says why");
        }
        boxyard.feed(&["load", "-q"], &archive).says("Loaded image");
    }
    boxyard.stop();
}

#[test]
fn stop_and_start_keeps_everything() {
    let mut boxyard = start();
    boxyard
        .docker(&["run", "--name", "kept", "busybox", "sh", "-c", "echo words; echo file > /file; exit 3"])
        .fails(3, "");
    boxyard.feed(&["build", "-t", "made", "-"], b"FROM busybox\nRUN echo x > /x\n").ok();
    let images = boxyard.docker(&["images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}"]).stdout;
    boxyard.down();
    boxyard.up();
    check_kept(&boxyard, &images, 1);
    boxyard.docker(&["run", "-d", "--name", "alive", "busybox", "sh", "-c", "echo up; sleep 300"]).ok();
    boxyard.kill_all();
    boxyard.up();
    check_kept(&boxyard, &images, 2);
    let state = boxyard.docker(&["inspect", "-f", "{{.State.Status}}", "alive"]);
    assert!(["running", "exited"].contains(&state.ok()), "re-adopted or reported\n{state}");
    boxyard.docker(&["rm", "-f", "alive"]).ok();
    boxyard.feed(&["build", "-t", "made2", "-"], b"FROM made\nRUN cat /x\n").ok();
    boxyard.stop();
}

/// What `stop_and_start_keeps_everything` made is there, its container having run so many times; it runs once more.
fn check_kept(boxyard: &Boxyard, images: &str, runs: usize) {
    assert_eq!(boxyard.docker(&["images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}"]).stdout, images);
    assert_eq!(boxyard.docker(&["logs", "kept"]).stdout, "words\n".repeat(runs));
    assert_eq!(boxyard.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "kept"]).ok(), "exited 3");
    boxyard.docker(&["diff", "kept"]).says("A /file");
    boxyard.docker(&["start", "kept"]).ok();
    boxyard.docker(&["wait", "kept"]).says("3");
}

#[test]
fn two_side_by_side() {
    let one = Engine::start(Kind::Boxyard);
    let two = Engine::start(Kind::Boxyard);
    one.load_busybox();
    assert_eq!(two.docker(&["images", "-q"]).ok(), "", "each has its own images");
    two.load_busybox();
    one.docker(&["run", "-d", "--name", "same", "busybox", "sleep", "100"]).ok();
    two.docker(&["run", "-d", "--name", "same", "busybox", "sleep", "100"]).ok();
    assert_eq!(one.docker(&["exec", "same", "echo", "1"]).ok(), "1");
    one.docker(&["rm", "-f", "same"]).ok();
    one.stop();
    assert_eq!(two.docker(&["exec", "same", "echo", "2"]).ok(), "2", "stopping one leaves the other alone");
    two.docker(&["run", "--rm", "busybox", "true"]).ok();
    two.docker(&["rm", "-f", "same"]).ok();
    two.stop();
}

#[test]
fn up_and_down_by_command() {
    let boxyard = Boxyard::start(Options { workers: 2, ..Options::default() });
    boxyard.boxyard(&["status"]).says("gateway").says("node").says("build-worker");
    let again = boxyard.boxyard(&["up", "--data-dir", &boxyard.data_dir().to_string_lossy()]);
    assert_ne!(again.code, 0, "a second one on the same data folder is refused\n{again}");
    boxyard.stop();
}
