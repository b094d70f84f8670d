//! Containers: the life of one, exit codes, options of run, logs, names, listing, events.

use std::time::Duration;

use kit::{Engine, Kind, on_both, on_postgres_too, wait_until};

on_both! {
    fn exit_codes(engine: &Engine) {
        assert_eq!(engine.docker(&["run", "--rm", "busybox", "true"]).code, 0);
        assert_eq!(engine.docker(&["run", "--rm", "busybox", "sh", "-c", "exit 42"]).code, 42);
        engine.docker(&["run", "--rm", "nosuchimage:1", "true"]).fails(125, "nosuchimage");
        engine.docker(&["run", "--rm", "busybox", "/etc"]).fails(126, "permission denied");
        engine.docker(&["run", "--rm", "busybox", "/nosuch"]).fails(127, "no such file or directory");
        engine.docker(&["run", "--rm", "busybox", "nosuch"]).fails(127, "executable file not found in $PATH");
        engine.docker(&["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).fails(137, "");
        assert_eq!(engine.docker(&["ps", "-aq", "-f", "status=running"]).ok(), "");
    }

    fn life_of_a_container(engine: &Engine) {
        let id = engine.docker(&["create", "--name", "life", "busybox", "sleep", "100"]).ok().to_owned();
        assert_eq!(id.len(), 64);
        let state = |engine: &kit::Engine| engine.docker(&["inspect", "-f", "{{.State.Status}}", "life"]).ok().to_owned();
        assert_eq!(state(engine), "created");
        assert_eq!(engine.docker(&["start", "life"]).ok(), "life");
        assert_eq!(state(engine), "running");
        engine.docker(&["ps"]).says("life").says("Up ");
        engine.docker(&["top", "life"]).says("sleep 100");
        engine.docker(&["stop", "-t", "1", "life"]).ok();
        assert_eq!(engine.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "life"]).ok(), "exited 137");
        engine.docker(&["restart", "-t", "0", "life"]).ok();
        assert_eq!(state(engine), "running");
        engine.docker(&["rm", "life"]).fails(1, "or force remove");
        engine.docker(&["kill", "-s", "KILL", "life"]).ok();
        assert_eq!(engine.docker(&["wait", "life"]).ok(), "137");
        engine.docker(&["kill", "life"]).fails(1, "is not running");
        engine.docker(&["rename", "life", "after"]).ok();
        engine.docker(&["ps", "-a"]).says("after").hides("life ");
        engine.docker(&["rm", "after"]).ok();
        engine.docker(&["start", "after"]).fails(1, "No such container: after");
    }

    fn names(engine: &Engine) {
        engine.docker(&["create", "--name", "taken", "busybox"]).ok();
        engine.docker(&["create", "--name", "taken", "busybox"])
            .fails(1, "Conflict. The container name \"/taken\" is already in use by container");
        engine.docker(&["run", "--name", "taken", "busybox"]).fails(125, "You have to remove (or rename) that container");
        engine.docker(&["create", "--name", "-bad", "busybox"]).fails(1, "Invalid container name (-bad)");
        engine.docker(&["create", "busybox"]).ok();
        let names = engine.docker(&["ps", "-a", "--format", "{{.Names}}"]);
        assert!(names.lines().iter().any(|name| name.split('_').count() == 2), "{names}");
    }

    fn options_of_run(engine: &Engine) {
        let run = |engine: &kit::Engine, args: &[&str]| {
            let mut all = vec!["run", "--rm"];
            all.extend(args);
            engine.docker(&all).ok().to_owned()
        };
        assert_eq!(run(engine, &["-e", "A=1 2", "busybox", "sh", "-c", "echo $A"]), "1 2");
        assert_eq!(run(engine, &["-w", "/tmp", "busybox", "pwd"]), "/tmp");
        assert_eq!(run(engine, &["-u", "guest", "busybox", "id", "-un"]), "guest");
        assert_eq!(run(engine, &["-u", "12:34", "busybox", "sh", "-c", "id -u; id -g"]), "12\n34");
        assert_eq!(run(engine, &["--entrypoint", "echo", "busybox", "a"]), "a");
        assert_eq!(run(engine, &["--hostname", "boxy", "busybox", "hostname"]), "boxy");
        assert!(run(engine, &["--init", "busybox", "cat", "/proc/1/cmdline"]).contains("init"));
        engine.docker(&["run", "--rm", "--read-only", "busybox", "touch", "/x"]).fails(1, "Read-only file system");
        let bound = engine.write("bound/file", "from outside");
        let volume = format!("{}:/in", bound.parent().expect("has a parent").display());
        assert_eq!(run(engine, &["-v", &volume, "busybox", "sh", "-c", "echo inside > /in/new; cat /in/file"]), "from outside");
        assert_eq!(std::fs::read_to_string(bound.with_file_name("new")).expect("written"), "inside\n");
        let read_only = format!("{volume}:ro");
        engine.docker(&["run", "--rm", "-v", &read_only, "busybox", "touch", "/in/x"]).fails(1, "Read-only file system");
        assert_eq!(run(engine, &["-v", "/anonymous", "busybox", "sh", "-c", "touch /anonymous/x; ls /anonymous"]), "x");
        assert_eq!(run(engine, &["--network", "none", "busybox", "ls", "/sys/class/net"]), "lo");
        assert!(run(engine, &["--network", "host", "busybox", "ls", "/sys/class/net"]).contains("eth0"));
        let links = run(engine, &["busybox", "ls", "/sys/class/net"]);
        assert_eq!(links, "eth0\nlo");
        assert!(run(engine, &["busybox", "cat", "/etc/hosts"]).contains("localhost"));
        assert!(run(engine, &["busybox", "cat", "/etc/resolv.conf"]).contains("nameserver"));
        let hosts = run(engine, &["busybox", "sh", "-c", "grep -c $(hostname) /etc/hosts; ip route | grep -c default"]);
        assert_eq!(hosts, "1\n1");
        assert_eq!(run(engine, &["--label", "a=b", "busybox", "true"]), "");
        assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "", "--rm removes");
    }

    fn containers_reach_each_other(engine: &Engine) {
        engine.docker(&["run", "-d", "--name", "server", "busybox", "sh", "-c", "echo found > /index.html; httpd -f -p 80 -h /"]).ok();
        let ip = engine.docker(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "server"]).ok().to_owned();
        assert!(ip.split('.').count() == 4, "{ip}");
        let url = format!("http://{ip}/");
        let got = wait_until("the server to answer", 60, || {
            let output = engine.docker(&["run", "--rm", "busybox", "wget", "-q", "-O", "-", &url]);
            (output.code == 0).then_some(output)
        });
        assert_eq!(got.ok(), "found");
        engine.docker(&["rm", "-f", "server"]).ok();
    }

    fn logs(engine: &Engine) {
        engine.docker(&["run", "--name", "talk", "busybox", "sh", "-c", "for i in 1 2 3; do echo out$i; done; sleep 1; echo err >&2"]).ok();
        let all = engine.docker(&["logs", "talk"]);
        assert_eq!((all.stdout.as_str(), all.stderr.as_str()), ("out1\nout2\nout3\n", "err\n"));
        assert_eq!(engine.docker(&["logs", "--tail", "2", "talk"]).stdout, "out3\n");
        assert_eq!(engine.docker(&["logs", "--tail", "0", "talk"]).stdout, "");
        let timed = engine.docker(&["logs", "-t", "talk"]);
        let (time, text) = timed.lines()[0].split_once(' ').expect("a time and a text");
        assert_eq!(text, "out1");
        assert!(time.len() >= 20 && time.ends_with('Z'), "{time}");
        assert_eq!(engine.docker(&["logs", "--since", "2100-01-01T00:00:00Z", "talk"]).stdout, "");
        assert_eq!(engine.docker(&["logs", "--since", "1h", "talk"]).stdout, "out1\nout2\nout3\n");
        assert_eq!(engine.docker(&["logs", "--until", "2001-01-01T00:00:00Z", "talk"]).stdout, "");
        let followed = engine.docker(&["logs", "-f", "talk"]);
        assert_eq!(followed.stdout, "out1\nout2\nout3\n", "follow ends with the container");
        engine.docker(&["run", "-d", "--name", "slow", "busybox", "sh", "-c", "echo a; sleep 1; echo b; sleep 1; echo c"]).ok();
        assert_eq!(engine.docker(&["logs", "-f", "slow"]).stdout, "a\nb\nc\n");
        engine.docker(&["logs", "nosuch"]).fails(1, "No such container: nosuch");
    }

    fn listing_and_filters(engine: &Engine) {
        engine.docker(&["run", "--name", "done", "--label", "kind=x", "busybox", "sh", "-c", "exit 3"]).fails(3, "");
        engine.docker(&["run", "-d", "--name", "going", "busybox", "sleep", "60"]).ok();
        engine.docker(&["ps"]).says("going").hides("done");
        engine.docker(&["ps", "-a"]).says("Exited (3)").says("\"sh -c 'exit 3'\"");
        engine.docker(&["ps", "-a", "-f", "exited=3"]).says("done").hides("going");
        engine.docker(&["ps", "-a", "-f", "label=kind=x"]).says("done").hides("going");
        engine.docker(&["ps", "-a", "-f", "name=goi"]).says("going").hides("done");
        engine.docker(&["ps", "-a", "-f", "ancestor=busybox"]).says("done").says("going");
        engine.docker(&["ps", "-l"]).says("going").hides("done");
        engine.docker(&["ps", "-n", "1"]).says("going").hides("done");
        engine.docker(&["ps", "-as"]).says("0B (virtual");
        assert_eq!(engine.docker(&["ps", "-q"]).ok().len(), 12);
        engine.docker(&["rm", "-f", "going", "done"]).says("going\ndone");
    }

    fn events_tell_what_happened(engine: &Engine) {
        let from = engine.shell("date +%s.%N").ok().to_owned();
        engine.docker(&["run", "--name", "seen", "busybox", "true"]).ok();
        engine.docker(&["tag", "busybox", "evented:1"]).ok();
        engine.docker(&["rm", "seen"]).ok();
        let until = engine.shell("sleep 0.2; date +%s.%N").ok().to_owned();
        let events = engine.docker(&["events", "--since", &from, "--until", &until, "--format", "{{.Type}} {{.Action}}"]);
        for expected in ["container create", "container start", "container die", "container destroy", "image tag"] {
            assert!(events.stdout.lines().any(|line| line == expected), "no {expected}\n{events}");
        }
        let filtered = engine.docker(&["events", "--since", &from, "--until", &until, "-f", "event=die"]);
        filtered.says("die").says("exitCode=0").hides("destroy");
    }

    fn version_info_and_df(engine: &Engine) {
        engine.docker(&["version"]).says("Server:").says("API version:");
        engine.docker(&["info"]).says("Images: 1").says("Containers: 0");
        engine.docker(&["run", "--name", "one", "busybox", "sh", "-c", "echo 123 > /file"]).ok();
        engine.docker(&["system", "df"]).says("Images").says("Containers").says("Local Volumes").says("Build Cache");
        assert_eq!(engine.api("GET", "/_ping", "").text(), "OK");
        engine.docker(&["system", "prune", "-af"]).says("Total reclaimed space:");
        assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
        assert_eq!(engine.docker(&["images", "-q"]).ok(), "");
    }

    fn restart_policy(engine: &Engine) {
        engine.docker(&["run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo x; exit 1"]).ok();
        wait_until("two restarts", 60, || {
            let count = engine.docker(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again"]);
            (count.ok() == "2 exited").then_some(())
        });
        assert_eq!(engine.docker(&["logs", "again"]).stdout, "x\nx\nx\n");
    }
}

on_postgres_too!(life_of_a_container, events_tell_what_happened);

#[test]
fn a_container_that_is_being_started_is_removed_by_force() {
    kit::run(Kind::Boxyard, removed_while_it_starts);
}

fn removed_while_it_starts(engine: &Engine) {
    for round in 0..15 {
        let name = format!("racing{round}");
        engine.docker(&["create", "--name", &name, "busybox", "sleep", "100"]).ok();
        let path = format!("/containers/{name}/start");
        std::thread::scope(|scope| {
            scope.spawn(|| engine.api("POST", &path, ""));
            // Before the start, in it, and after it.
            std::thread::sleep(Duration::from_millis(round * 4));
            let removed = engine.api("DELETE", &format!("/containers/{name}?force=1"), "");
            assert_eq!(removed.status, 204, "round {round}: {}", removed.text());
        });
    }
    assert_eq!(engine.docker(&["ps", "-aq"]).ok(), "");
}
