//! Bytes both ways: standard input, terminals, attach, exec.

use kit::{on_both, wait_until};

on_both! {
    fn standard_input_passes_and_ends(engine: &Engine) {
        assert_eq!(engine.docker_fed(&["run", "-i", "--rm", "busybox", "cat"], b"piped").stdout, "piped");
        assert_eq!(engine.docker_fed(&["run", "-i", "--rm", "busybox", "wc", "-c"], &vec![b'x'; 3_000_000]).ok().trim(), "3000000");
        assert_eq!(engine.docker_fed(&["run", "--rm", "busybox", "cat"], b"not attached").stdout, "");
        let big = engine.shell("docker run --rm busybox sh -c 'yes 0123456789 | head -c 20000000' | sha256sum");
        assert_eq!(big.ok(), engine.shell("(yes 0123456789 || true) | head -c 20000000 | sha256sum").ok());
    }

    fn both_streams_stay_apart(engine: &Engine) {
        let run = engine.docker(&["run", "--rm", "busybox", "sh", "-c", "echo to out; echo to err >&2; exit 5"]);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str(), run.code), ("to out\n", "to err\n", 5));
    }

    fn terminal(engine: &Engine) {
        // A person types when the prompt is there.
        let typed = engine.typed("docker run -it --rm busybox sh", &[("# ", "tty; echo $((40+2)); exit 9")]);
        assert!(typed.stdout.contains("/dev/pts/0") && typed.stdout.contains("42"), "{typed}");
        assert_eq!(typed.code, 9, "{typed}");
        let no_input = engine.docker(&["run", "-t", "--rm", "busybox", "sh", "-c", "tty; echo done"]);
        assert_eq!(no_input.ok(), "/dev/pts/0\r\ndone\r");
    }

    fn attach_sees_what_comes(engine: &Engine) {
        engine.docker(&["run", "-d", "-i", "--name", "echoing", "busybox", "sh", "-c", "read line; echo got $line; sleep 1; exit 4"]).ok();
        let attached = engine.shell("(echo words; sleep 3) | docker attach echoing");
        assert_eq!((attached.stdout.as_str(), attached.code), ("got words\n", 4));
        engine.docker(&["attach", "echoing"]).fails(1, "You cannot attach to a stopped container");
    }

    fn exec(engine: &Engine) {
        engine.docker(&["run", "-d", "--name", "host", "busybox", "sleep", "100"]).ok();
        assert_eq!(engine.docker(&["exec", "host", "echo", "hi"]).ok(), "hi");
        engine.docker(&["exec", "host", "sh", "-c", "echo oops >&2; exit 6"]).fails(6, "oops");
        assert_eq!(engine.docker_fed(&["exec", "-i", "host", "cat"], b"fed").ok(), "fed");
        assert_eq!(engine.docker(&["exec", "-e", "A=b", "-w", "/tmp", "-u", "guest", "host", "sh", "-c", "echo $A; pwd; id -un"]).ok(), "b\n/tmp\nguest");
        assert_eq!(engine.docker(&["exec", "-t", "host", "tty"]).ok(), "/dev/pts/0\r");
        engine.docker(&["exec", "host", "nosuch"]).fails(if engine.is_boxyard() { 127 } else { 126 }, "executable file not found");
        engine.docker(&["exec", "-d", "host", "touch", "/made"]).ok();
        wait_until("the detached exec", 60, || (engine.docker(&["exec", "host", "ls", "/made"]).code == 0).then_some(()));
        engine.docker(&["stop", "-t", "0", "host"]).ok();
        engine.docker(&["exec", "host", "true"]).fails(1, "is not running");
        engine.docker(&["exec", "nosuch", "true"]).fails(1, "No such container: nosuch");
    }
}
