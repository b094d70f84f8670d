//! Debian 13's docker command as its users have it: with buildx, by which it builds, and compose v2. What Debian 13's
//! dockerd has too runs there as well: that proves the flow.

mod bake;
mod compose;
mod contexts;
mod outputs;

use kit::{Engine, on_docker26_too};

/// A context with two stages that the last one needs.
fn write_stages(engine: &Engine) {
    engine.write("ctx/a", "hello\n");
    engine.write(
        "ctx/Dockerfile",
        "FROM busybox AS one\nARG V=1\nRUN echo v=$V > /v\n\
         FROM busybox AS two\nCOPY a /a\n\
         FROM one\nCOPY --from=two /a /b\nCMD [\"cat\", \"/b\", \"/v\"]\n",
    );
}

fn read(engine: &Engine, name: &str) -> String {
    std::fs::read_to_string(engine.work_dir().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

on_docker26_too! {
    fn a_build_names_loads_and_tells_what_it_made(engine: &Engine) {
        write_stages(engine);
        let flags = "--build-arg V=2 --label l=m";
        let built = engine.shell26(&format!(
            "docker build -t one -t two:x {flags} --iidfile iid --metadata-file meta --progress plain ctx 2>&1"
        ));
        built.says("exporting to image").says("naming to docker.io/library/one").says("[stage-2 1/1] COPY --from=two /a /b");
        engine.docker26(&["run", "--rm", "two:x"]).says("hello\nv=2\n");
        engine.docker26(&["inspect", "-f", "{{.Config.Labels.l}}", "one"]).says("m\n");
        let id = engine.docker26(&["images", "-q", "--no-trunc", "one"]).ok().trim().to_owned();
        assert_eq!(read(engine, "iid").trim(), id);
        let meta: serde_json::Value = serde_json::from_str(&read(engine, "meta")).expect("JSON");
        assert_eq!(meta["containerimage.config.digest"], id.as_str());
        assert!(meta["image.name"].as_str().is_some_and(|name| name.starts_with("docker.io/library/one")), "{meta}");
        assert_eq!(engine.shell26(&format!("docker buildx build -q {flags} ctx")).ok().trim(), id);
        engine.shell26(&format!("docker buildx build --progress plain {flags} ctx 2>&1")).says("CACHED");
        let again = engine.shell26(&format!("docker buildx build --no-cache-filter one --progress plain {flags} ctx 2>&1"));
        let cached = |step: &str| {
            let mut lines = again.ok().lines().skip_while(|line| !line.ends_with(step)).skip(1);
            lines.next().is_some_and(|line| line.ends_with(" CACHED"))
        };
        assert!(cached("COPY a /a") && !cached("> /v"), "{again}");
        engine.shell26("docker buildx build --target two -t two ctx").ok();
        engine.docker26(&["run", "--rm", "two", "cat", "/a"]).says("hello\n");
        engine.docker26(&["buildx", "build", "--target", "nope", "ctx"]).fails(1, "target stage \"nope\" could not be found");
        engine.docker26(&["buildx", "build", "-f", "none", "ctx"]).fails(1, "open none: no such file or directory");
        engine.shell26("docker buildx ls").says("default").says("running");
    }

    fn a_build_that_fails_shows_where(engine: &Engine) {
        engine.write("ctx/Dockerfile", "FROM busybox\nRUN echo one\nRUN echo before && \\\n   exit 9\nRUN echo never\n");
        let failed = engine.docker26(&["build", "--progress", "plain", "ctx"]);
        for text in [
            " > [3/4] RUN echo before &&    exit 9:",
            "   3 | >>> RUN echo before && \\\n   4 | >>>    exit 9\n   5 |     RUN echo never\n",
            "failed to solve: process \"/bin/sh -c echo before &&    exit 9\" did not complete successfully: exit code: 9",
        ] {
            failed.fails(1, text);
        }
        let quiet = engine.docker26(&["build", "-q", "ctx"]);
        assert!(quiet.fails(1, "exit code: 9").stdout.is_empty(), "{quiet}");
        engine.write("ctx/Copied", "FROM busybox\nCOPY nothing /\n");
        engine.docker26(&["build", "-f", "ctx/Copied", "ctx"]).fails(1, "\"/nothing\": not found");
        engine.write("ctx/Absent", "FROM 127.0.0.1:9/absent\nRUN true\n");
        let absent = engine.docker26(&["build", "-f", "ctx/Absent", "ctx"]);
        absent.fails(1, "127.0.0.1:9/absent: failed to resolve source metadata for 127.0.0.1:9/absent:latest: ");
        absent.fails(1, "   1 | >>> FROM 127.0.0.1:9/absent\n");
    }

    fn an_interrupted_build_leaves_no_process(engine: &Engine) {
        // Two engines run this on one machine at the same time: each waits for a process of its own.
        let seconds = 10_000_000 + std::process::id();
        engine.write("ctx/Dockerfile", format!("FROM busybox\nRUN echo begun; sleep {seconds}\n"));
        let interrupted = engine.shell26(&format!(
            "docker buildx build --progress plain ctx > log 2>&1 & client=$!
             runs() {{ pgrep -fx 'sleep {seconds}'; }}
             for turn in $(seq 300); do runs > /dev/null && break; sleep 0.1; done
             runs > /dev/null || {{ cat log; exit 3; }}
             kill -INT $client; wait $client; echo client=$?
             for turn in $(seq 50); do runs > /dev/null || break; sleep 0.1; done
             runs; cat log",
        ));
        interrupted.says("client=1").says("CANCELED");
        assert!(!interrupted.stdout.contains("client=0"), "{interrupted}");
        assert!(!interrupted.lines().iter().any(|line| line.parse::<u32>().is_ok()), "it runs on: {interrupted}");
    }

    fn secrets_agents_and_the_steps_surroundings(engine: &Engine) {
        engine.write("secret", "s3cret\n");
        engine.write(
            "ctx/Dockerfile",
            "FROM busybox\n\
             RUN --mount=type=secret,id=file cat /run/secrets/file\n\
             RUN --mount=type=secret,id=variable echo \"variable is $(cat /run/secrets/variable)\"\n\
             RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo an agent\n\
             RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n",
        );
        engine.shell26("openssl genpkey -algorithm ed25519 -out key && chmod 600 key").ok();
        let secrets = "--secret id=file,src=secret --secret id=variable,env=VARIABLE --ssh default=key";
        let built = engine.shell26(&format!("VARIABLE=v docker build --progress plain {secrets} ctx 2>&1"));
        built.says("s3cret").says("variable is v").says("an agent");
        engine.write("ctx/Needs", "FROM busybox\nRUN --mount=type=secret,id=none,required=true true\n");
        engine.docker26(&["build", "-f", "ctx/Needs", "ctx"]).fails(1, "secret none: not found");

        engine.write(
            "ctx/Around",
            "FROM busybox\nRUN cat /etc/hosts; df -k /dev/shm | tail -n1; echo files $(ulimit -n); echo links $(ls /sys/class/net)\n",
        );
        let around = engine.shell26(
            "docker build --progress plain -f ctx/Around --add-host there:1.2.3.4 --add-host up:host-gateway \
             --shm-size 32m --ulimit nofile=77:88 --network none ctx 2>&1",
        );
        around.says("1.2.3.4\tthere").says(" 32768 ").says("files 77").says("links lo");
        let gateway = around.lines().into_iter().find_map(|line| line.strip_suffix("\tup")?.split(' ').next_back());
        let gateway = gateway.and_then(|address| address.parse::<std::net::Ipv4Addr>().ok());
        let own = gateway.map(|address| std::net::TcpListener::bind((address, 0)));
        assert!(matches!(own, Some(Ok(_))), "{gateway:?} is an address of this machine: {around}");
        engine.docker26(&["build", "-f", "ctx/Around", "--network", "bogus", "ctx"]).fails(1, "network mode \"bogus\" not supported");
        engine.docker26(&["build", "--allow", "bogus", "ctx"]).fails(1, "bogus");
    }

    fn what_the_dockerfile_offers_is_told_without_a_build(engine: &Engine) {
        write_stages(engine);
        let ask = |what: &str| engine.shell26(&format!("BUILDX_EXPERIMENTAL=1 docker buildx build --print={what} ctx"));
        ask("outline").says("BUILD ARG").says("V");
        ask("targets").says("one").says("two").says("(default)");
        let targets = ask("targets,format=json");
        let targets: serde_json::Value = serde_json::from_str(targets.ok()).expect("JSON");
        assert_eq!(targets["targets"][2]["default"], true, "{targets}");
        ask("dance").fails(1, "dance");
    }

    fn the_cache_is_listed_and_pruned(engine: &Engine) {
        engine.write("ctx/Dockerfile", "FROM busybox\nRUN echo kept > /kept\nRUN echo other > /other\n");
        engine.docker26(&["build", "ctx"]).ok();
        let listed = engine.docker26(&["buildx", "du"]);
        listed.says("RECLAIMABLE").says("Shared:").hides("Total:\t0B").hides("Total:\t\t0B");
        engine.docker26(&["buildx", "du", "--verbose"]).says("echo kept > /kept").says("Usage count:");
        engine.docker26(&["buildx", "prune", "-af", "--filter", "id~=a"]).fails(1, "unsupported operator \"~==\"");
        let other = engine.shell26("docker buildx du --verbose | grep -B9 'echo other' | grep ^ID: | tail -n1 | cut -d: -f2");
        engine.docker26(&["buildx", "prune", "-af", "--filter", &format!("id={}", other.ok().trim())]).says("Total:");
        engine.docker26(&["buildx", "du", "--verbose"]).says("echo kept").hides("echo other");
        engine.docker26(&["buildx", "prune", "-af"]).ok();
        engine.docker26(&["buildx", "du", "--verbose"]).hides("echo kept");
        engine.shell26("docker build --progress plain ctx 2>&1").says("[2/3] RUN echo kept");
    }
}
