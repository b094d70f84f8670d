//! The shim on a real crun. Needs root.

mod support;

use runtime::Error;
use runtime::bundle::{BundleSpec, ExecSpec, Namespace, ProcessSpec, Resources};
use runtime::cgroup::Cgroup;
use runtime::shim::{self, Streams};
use runtime::wire::{IDENTITY_FILE, Identity};
use support::{Room, attach, read_frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn sh(room: &Room, script: &str) -> BundleSpec {
    room.spec(&["sh", "-c", script])
}

#[tokio::test]
async fn output_log_and_exit_code() {
    let room = Room::new();
    let handle = room.spawn(&sh(&room, "echo out; echo err >&2; exit 3")).spawn().await.expect("a shim");
    let stream = attach(&handle).await;
    let started = handle.start().await.expect("it starts");
    assert!(started.pid > 1);
    assert_eq!(read_frames(stream).await, ("out\n".into(), "err\n".into()));
    let status = handle.wait_exit().await.expect("it ends");
    assert_eq!((status.code, status.oom, status.error.as_str()), (3, false, ""));
    handle.wait_gone().await;
    let log = std::fs::read_to_string(room.path("log")).expect("a log");
    assert!(log.contains("{\"log\":\"out\\n\",\"stream\":\"stdout\",\"time\":\"20"), "{log}");
    assert_eq!(shim::exit_status(&room.path("shim")), Some(status));
    assert!(shim::adopt(&room.path("shim")).is_none());
    for controller in ["memory", "pids", "devices"] {
        assert!(!std::path::Path::new("/sys/fs/cgroup").join(controller).join("boxyard").join(&room.id).exists());
    }
}

#[tokio::test]
async fn docker_defaults_inside() {
    let room = Room::new();
    let (code, text) = room
        .run(&sh(
            &room,
            "grep Seccomp: /proc/self/status; grep CapEff /proc/self/status; cat /proc/sys/kernel/hostname; env; id; \
             echo x > /dev/null && echo null-ok; echo 1 > /proc/sys/kernel/hostname; ls /sys/fs/cgroup; \
             mkdir /sys/fs/cgroup/memory/x; cat /proc/1/mountinfo",
        ))
        .await;
    assert_ne!(code, 127, "{text}");
    for wanted in [
        "Seccomp:\t2",
        "CapEff:\t00000000a80425fb",
        "boxy\n",
        "HOME=/root",
        "HOSTNAME=boxy",
        "PATH=/usr/local/sbin:",
        "uid=0(root) gid=0(root)",
        "null-ok",
        "Read-only file system",
        " /dev/shm rw,nosuid,nodev,noexec",
        " /dev/mqueue rw,nosuid,nodev,noexec",
        " /sys ro,nosuid,nodev,noexec",
        "memory",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is missing in:\n{text}");
    }
}

#[tokio::test]
async fn user_of_the_roots_passwd() {
    let room = Room::new();
    let mut spec = sh(&room, "id; env; grep CapEff /proc/self/status; echo direct > /dev/stdout");
    spec.process.user = "web".into();
    let (code, text) = room.run(&spec).await;
    assert!(text.contains("uid=33(web) gid=34(www)") && text.contains("HOME=/home/web"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
    assert!(text.contains("direct"), "{text}");
    assert_eq!(code, 0);
}

#[tokio::test]
async fn privileged_and_read_only() {
    let room = Room::new();
    let spec = BundleSpec {
        privileged: true,
        readonly_rootfs: true,
        ..sh(&room, "grep Seccomp: /proc/self/status; echo x > /new; ls /dev")
    };
    let (_, text) = room.run(&spec).await;
    assert!(text.contains("Seccomp:\t0") && text.contains("Read-only file system"), "{text}");
}

#[tokio::test]
async fn init_is_process_one() {
    let room = Room::new();
    let spec = BundleSpec { init: true, ..sh(&room, "cat /proc/1/cmdline; exit 4") };
    let (code, text) = room.run(&spec).await;
    assert!(code == 4 && text.contains("docker-init"), "{code} {text}");
}

#[tokio::test]
async fn failed_starts_in_dockers_words() {
    for (args, words, code) in [
        ("nothing", "exec: \"nothing\": executable file not found in $PATH", 127),
        ("/bin/nothing", "exec: \"/bin/nothing\": stat /bin/nothing: no such file or directory", 127),
        ("/etc/plain", "exec: \"/etc/plain\": permission denied", 126),
        ("/etc", "exec: \"/etc\": permission denied", 126),
    ] {
        let room = Room::new();
        let handle = room.spawn(&room.spec(&[args])).spawn().await.expect("a shim");
        match handle.start().await {
            Err(Error::Start { message, code: got }) => {
                assert!(message.contains(words), "{message}");
                assert_eq!(got, code);
            }
            other => panic!("{args}: {other:?}"),
        }
        assert_eq!(handle.wait_exit().await.expect("recorded").code, code);
        handle.wait_gone().await;
    }
}

#[tokio::test]
async fn stdin_ends_once() {
    let room = Room::new();
    let mut spawn = room.spawn(&room.spec(&["cat"]));
    spawn.config.open_stdin = true;
    spawn.config.stdin_once = true;
    let handle = spawn.spawn().await.expect("a shim");
    let stream = attach(&handle).await;
    handle.start().await.expect("it starts");
    let (mut read, mut write) = stream.into_split();
    let text = "0123456789abcde\n".repeat(64 * 1024);
    let sent = text.clone();
    let writer = tokio::spawn(async move {
        write.write_all(sent.as_bytes()).await.expect("cat reads");
        write.shutdown().await.expect("half close");
        write
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.expect("it ends");
    writer.await.expect("written");
    let mut payload = 0;
    let mut rest = got.as_slice();
    while let [1, 0, 0, 0, a, b, c, d, tail @ ..] = rest {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        payload += len;
        rest = &tail[len..];
    }
    assert_eq!(payload, text.len());
    assert_eq!(handle.wait_exit().await.expect("it ends").code, 0);
    handle.wait_gone().await;
}

#[tokio::test]
async fn terminal_size_signal_and_raw_output() {
    let room = Room::new();
    let mut spec = sh(&room, "stty size; read line; echo got $line; stty size; sleep 100");
    spec.process.tty = true;
    let mut spawn = room.spawn(&spec);
    spawn.config.open_stdin = true;
    spawn.config.tty_size = (11, 22);
    let handle = spawn.spawn().await.expect("a shim");
    let mut stream = attach(&handle).await;
    handle.start().await.expect("it starts");
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    let mut asked = false;
    while !seen.contains("33 44") {
        let n = stream.read(&mut buffer).await.expect("output");
        assert!(n > 0, "ended early: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        if seen.contains("11 22") && !asked {
            asked = true;
            handle.resize(33, 44).await.expect("a terminal");
            stream.write_all(b"hello\n").await.expect("stdin");
        }
    }
    assert!(seen.contains("got hello\r\n"), "{seen}");
    handle.signal(9).await.expect("it runs");
    assert_eq!(handle.wait_exit().await.expect("it ends").code, 137);
    handle.wait_gone().await;
}

#[tokio::test]
async fn exec_in_a_running_container() {
    let room = Room::new();
    let spawn = room.spawn(&room.spec(&["sleep", "100"]));
    let handle = spawn.spawn().await.expect("a shim");
    let pid = handle.start().await.expect("it starts").pid;
    let rootfs = std::path::PathBuf::from(format!("/proc/{pid}/root"));
    for (tty, user, script, words, code) in [
        (false, "", "echo $0 $HOME $X; exit 5", "sh /root 1", 5),
        (false, "web", "id -u; echo $HOME; kill -9 $$", "33\n/home/web", 137),
        (true, "", "test -t 0 && echo tty; grep Seccomp: /proc/self/status", "tty\r\nSeccomp:\t2", 0),
    ] {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let spec = ExecSpec { args, env: vec!["X=1".into()], user: user.into(), tty, ..ExecSpec::default() };
        let exec = room.exec(&spawn, &rootfs, &spec).spawn().await.expect("a shim");
        let mut stream = attach(&exec).await;
        exec.start().await.expect("it starts");
        let text = if tty {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("text");
            text
        } else {
            read_frames(stream).await.0
        };
        assert!(text.contains(words), "{text:?}");
        assert_eq!(exec.wait_exit().await.expect("it ends").code, code, "{script}");
        exec.wait_gone().await;
    }
    let spec = ExecSpec { args: vec!["nothing".into()], ..ExecSpec::default() };
    let exec = room.exec(&spawn, &rootfs, &spec).spawn().await.expect("a shim");
    assert!(matches!(exec.start().await, Err(Error::Start { code: 127, .. })));
    exec.wait_gone().await;
    handle.signal(9).await.expect("it runs");
    handle.wait_gone().await;
}

#[tokio::test]
async fn dropped_handle_of_a_watched_one_kills() {
    let room = Room::new();
    let mut spawn = room.spawn(&room.spec(&["sleep", "100"]));
    spawn.config.watch = true;
    let handle = spawn.spawn().await.expect("a shim");
    handle.start().await.expect("it starts");
    let other = shim::adopt(handle.dir()).expect("it lives");
    drop(handle);
    assert_eq!(other.wait_exit().await.expect("it ends").code, 137);
    other.wait_gone().await;
}

#[tokio::test]
async fn adopted_after_its_handle_is_gone() {
    let room = Room::new();
    let mut spawn = room.spawn(&sh(&room, "read line; echo $line"));
    spawn.config.open_stdin = true;
    let handle = spawn.spawn().await.expect("a shim");
    handle.start().await.expect("it starts");
    drop(handle);
    let adopted = shim::adopt(&room.path("shim")).expect("it lives");
    assert!(adopted.started().is_some());
    let mut stream = attach(&adopted).await;
    stream.write_all(b"again\n").await.expect("stdin is still held");
    assert_eq!(read_frames(stream).await.0, "again\n");
    assert_eq!(adopted.wait_exit().await.expect("it ends").code, 0);
    adopted.wait_gone().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let room = Room::new();
    let handle = room.spawn(&sh(&room, "yes | head -c 8000000")).spawn().await.expect("a shim");
    let stuck = handle.attach(Streams { stdin: false, stdout: true, stderr: true }).await.expect("attached");
    handle.start().await.expect("it starts");
    let begun = std::time::Instant::now();
    assert_eq!(handle.wait_exit().await.expect("it ends").code, 0);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    drop(stuck);
    handle.wait_gone().await;
}

#[tokio::test]
async fn killed_for_memory() {
    let room = Room::new();
    let mut spec = sh(&room, "dd if=/dev/zero of=/dev/null bs=200M count=1");
    spec.resources.memory_bytes = 16 * 1024 * 1024;
    spec.process = ProcessSpec {
        args: ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"].map(str::to_owned).to_vec(),
        ..spec.process
    };
    let handle = room.spawn(&spec).spawn().await.expect("a shim");
    handle.start().await.expect("it starts");
    let status = handle.wait_exit().await.expect("it ends");
    assert_eq!((status.code, status.oom), (137, true));
    handle.wait_gone().await;
}

#[tokio::test]
async fn spawn_to_exit_of_true_is_quick() {
    let mut times = Vec::new();
    for _ in 0..7 {
        let room = Room::new();
        let begun = std::time::Instant::now();
        // The network's namespace is made by others, off this path.
        let spec = BundleSpec { network: Namespace::Host, ..room.spec(&["true"]) };
        let handle = room.spawn(&spec).spawn().await.expect("a shim");
        let spawned = begun.elapsed();
        handle.start().await.expect("it starts");
        let started = begun.elapsed();
        handle.wait_exit().await.expect("it ends");
        times.push([begun.elapsed(), started, spawned].map(|time| time.as_millis()));
        handle.wait_gone().await;
    }
    times.sort();
    eprintln!("true, ms to exit, to started, to spawned: {times:?}");
    // The goal is 25; others use the machine too while tests run.
    assert!(times[0][0] < 100, "{times:?}");
}

#[tokio::test]
async fn freeze_update_and_processes() {
    let room = Room::new();
    let spawn = room.spawn(&room.spec(&["sleep", "100"]));
    let handle = spawn.spawn().await.expect("a shim");
    let pid = handle.start().await.expect("it starts").pid;
    let cgroup = Cgroup::new(&spawn.config.cgroup_path);
    assert_eq!(cgroup.processes(), [pid]);
    cgroup.freeze().expect("it freezes");
    cgroup.thaw().expect("it thaws");
    cgroup.update(&Resources { pids_limit: 7, cpu_shares: 512, ..Resources::default() }).expect("limits");
    assert_eq!(cgroup.read("pids", "pids.max").expect("a limit").trim(), "7");
    handle.signal(15).await.expect("it runs");
    handle.signal(9).await.expect("it runs");
    assert_eq!(handle.wait_exit().await.expect("it ends").code, 137);
    handle.wait_gone().await;
}

#[tokio::test]
async fn a_dead_shims_container_is_cleaned_up() {
    let room = Room::new();
    let spawn = room.spawn(&BundleSpec { network: Namespace::Host, ..room.spec(&["sleep", "100"]) });
    let handle = spawn.spawn().await.expect("a shim");
    let pid = handle.start().await.expect("it starts").pid;
    let text = std::fs::read(room.path("shim").join(IDENTITY_FILE)).expect("an identity");
    let shim: Identity = serde_json::from_slice(&text).expect("JSON");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim.pid), nix::sys::signal::Signal::SIGKILL).expect("it lives");
    assert!(matches!(handle.wait_exit().await, Err(Error::Lost)));
    shim::clean_up(&spawn.shim_binary, handle.dir()).await.expect("cleaned up");
    assert_eq!(handle.wait_exit().await.expect("recorded").code, 137);
    assert!(!Identity::of(pid).is_ok_and(|process| process.is_alive()));
    // And the same container can start again.
    let handle = spawn.spawn().await.expect("a shim");
    handle.start().await.expect("it starts");
    handle.signal(9).await.expect("it runs");
    handle.wait_gone().await;
}

#[tokio::test]
async fn killed_when_its_spawner_is_silent_for_too_long() {
    let room = Room::new();
    let mut spawn = room.spawn(&room.spec(&["sleep", "100"]));
    (spawn.config.watch, spawn.config.deadline_ms) = (true, 1500);
    let handle = spawn.spawn().await.expect("a shim");
    handle.start().await.expect("it starts");
    for _ in 0..6 {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        handle.go_on();
    }
    assert!(shim::exit_status(handle.dir()).is_none(), "it was told to go on");
    let silent = std::time::Instant::now();
    let status = handle.wait_exit().await.expect("it ends");
    assert!(status.expired && status.code == 137, "{status:?}");
    assert!(silent.elapsed() > std::time::Duration::from_millis(1200), "{:?}", silent.elapsed());
    handle.wait_gone().await;

    let mut spawn = room.spawn(&sh(&room, "exit 137"));
    (spawn.config.watch, spawn.config.deadline_ms) = (true, 60_000);
    let handle = spawn.spawn().await.expect("a shim");
    handle.start().await.expect("it starts");
    assert!(!handle.wait_exit().await.expect("it ends").expired);
    handle.wait_gone().await;
}
