//! What a container may not do: limits, capabilities, seccomp, masked paths.

use kit::on_both;

on_both! {
    fn memory_limit_kills(engine: &Engine) {
        let run = engine.docker(&["run", "--name", "fat", "--memory", "20m", "busybox", "sh", "-c", "head -c 100000000 /dev/zero | tail"]);
        assert_ne!(run.code, 0, "{run}");
        let alone = engine.docker(&["run", "--name", "fat2", "--memory", "20m", "busybox", "tail", "/dev/zero"]);
        assert_eq!(alone.code, 137, "{alone}");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.State.OOMKilled}}", "fat2"]).ok(), "true");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.HostConfig.Memory}}", "fat2"]).ok(), "20971520");
    }

    fn seccomp_and_capabilities(engine: &Engine) {
        let status = engine.docker(&["run", "--rm", "busybox", "cat", "/proc/self/status"]);
        let field = |name: &str| {
            let line = status.stdout.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().to_owned()
        };
        assert_eq!(field("Seccomp:"), "2");
        assert_eq!(field("CapEff:"), "00000000a80425fb");
        assert_eq!(field("CapBnd:"), "00000000a80425fb");
        assert_eq!(field("NoNewPrivs:"), "0");
        let dropped = engine.docker(&["run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "busybox", "grep", "CapEff", "/proc/self/status"]);
        assert!(dropped.ok().ends_with("0000000000002000"), "{dropped}");
        if !engine.is_boxyard() {
            return; // runc asks for capabilities that this machine's own root may lack, and fails.
        }
        let all = engine.docker(&["run", "--rm", "--privileged", "busybox", "grep", "-E", "CapEff|Seccomp:", "/proc/self/status"]);
        assert!(!all.ok().contains("a80425fb") && all.stdout.contains("Seccomp:\t0"), "{all}");
    }

    fn blocked_calls_get_eperm(engine: &Engine) {
        engine.docker(&["run", "--rm", "busybox", "unshare", "-U", "true"]).fails(1, "Operation not permitted");
        engine.docker(&["run", "--rm", "busybox", "mount", "-t", "tmpfs", "none", "/tmp"]).fails(1, "ermi");
        if engine.is_boxyard() {
            engine.docker(&["run", "--rm", "--privileged", "busybox", "mount", "-t", "tmpfs", "none", "/tmp"]).ok();
        }
    }

    fn masked_and_read_only_paths(engine: &Engine) {
        assert_eq!(engine.docker(&["run", "--rm", "busybox", "sh", "-c", "cat /proc/kcore /proc/keys 2>/dev/null | wc -c"]).ok(), "0");
        engine.docker(&["run", "--rm", "busybox", "sh", "-c", "echo 1 > /proc/sys/vm/swappiness"]).fails(1, "Read-only file system");
        engine.docker(&["run", "--rm", "busybox", "touch", "/sys/x"]).fails(1, "Read-only file system");
    }

    fn cpu_and_process_limits(engine: &Engine) {
        let run = engine.docker(&["run", "-d", "--name", "half", "--cpus", "0.5", "--pids-limit", "50", "busybox", "sleep", "60"]);
        run.ok();
        assert_eq!(engine.docker(&["inspect", "-f", "{{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", "half"]).ok(), "500000000 50");
        let pid = engine.docker(&["inspect", "-f", "{{.State.Pid}}", "half"]).ok().to_owned();
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container runs");
        let read = |controller: &str, file: &str| {
            let path = groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let names = parts.nth(1)?;
                names.split(',').any(|name| name == controller).then(|| parts.next())?
            });
            let path = format!("/sys/fs/cgroup/{controller}{}/{file}", path.unwrap_or_default());
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
        };
        if std::path::Path::new("/sys/fs/cgroup/cpu").is_dir() {
            assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
            assert_eq!(read("pids", "pids.max"), "50");
        }
        engine.docker(&["rm", "-f", "half"]).ok();
    }
}
