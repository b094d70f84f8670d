//! Debian's docker command with DOCKER_BUILDKIT=1: a session for files, secrets and outputs, and `POST /build?version=2`.
//! The same flows on a Boxyard and on a dockerd.

use kit::{Engine, on_both};

/// The docker command that speaks BuildKit without buildx: the one of Debian 12.
const DOCKER: &str = "DOCKER_BUILDKIT=1 BUILDKIT_PROGRESS=plain /usr/bin/docker";

fn build(engine: &Engine, args: &str) -> kit::Output {
    engine.shell(&format!("{DOCKER} build {args} 2>&1"))
}

/// The steps that a build found in the cache, in their order. Some versions count FROM among them, others do not.
fn cached(output: &kit::Output) -> Vec<String> {
    let mut steps = Vec::new();
    for line in output.lines().into_iter().filter_map(|line| line.strip_suffix(" CACHED")) {
        let begins =
            output.lines().into_iter().find_map(|other| other.strip_prefix(&format!("{line} ["))?.split_once("] "));
        let (place, name) = begins.expect("a step has a name");
        if !name.starts_with("FROM ") {
            steps.push((place.to_owned(), name.to_owned()));
        }
    }
    steps.sort();
    steps.into_iter().map(|(_, name)| name).collect()
}

/// What a build printed that failed, and said this (without quotes).
fn fails(engine: &Engine, args: &str, why: &str) -> String {
    let failed = build(engine, args);
    let said = failed.stdout.replace("stage \"nowhere\"", "stage nowhere");
    assert!(failed.code == 1 && said.contains(why), "not said: {why}\n{failed}");
    failed.stdout
}

on_both! {
    fn a_folder_is_built_and_only_what_changed_is_built_again(engine: &Engine) {
        engine.write("c/.dockerignore", "*.log\nignored/\n");
        engine.write("c/sub/file", "one\n");
        engine.write("c/left.log", "left out");
        engine.write("c/ignored/x", "left out");
        engine.shell("ln -s file c/sub/link && chmod 750 c/sub/file").ok();
        let dockerfile = "FROM busybox\nRUN echo first > /first\nCOPY . /all/\nRUN cat /all/sub/link && ls -R /all\n";
        engine.write("c/Dockerfile", dockerfile);
        let first = build(engine, "--no-cache -t built c");
        first.says("[internal] load build definition from Dockerfile").says("RUN echo first > /first");
        first.says(" one\n").says("exporting to image").says("naming to docker.io/library/built").hides("left.log");
        engine.shell("docker run --rm built stat -c '%a %F %n' /all/sub/file /all/sub/link")
            .says("750 regular file /all/sub/file\n777 symbolic link /all/sub/link");
        let again = build(engine, "-t built c");
        assert_eq!(cached(&again), ["RUN echo first > /first", "COPY . /all/", "RUN cat /all/sub/link && ls -R /all"]);
        engine.write("c/sub/file", "two\n");
        let changed = build(engine, "-t built c");
        assert_eq!(cached(&changed), ["RUN echo first > /first"]);
        changed.says(" two\n");
        engine.shell("docker run --rm built cat /all/sub/link").says("two");
        let id = engine.shell(&format!("{DOCKER} build -q c")).ok().to_owned();
        let tagged = engine.docker(&["inspect", "-f", "{{.Id}}", "built"]).ok().to_owned();
        assert_eq!(id, tagged, "all is cached: it is the same image");
        engine.docker(&["run", "--rm", &id, "cat", "/all/sub/link"]).says("two");
    }

    fn dockerfiles_and_contexts_come_by_standard_input(engine: &Engine) {
        engine.write("s/here", "from the folder\n");
        let dockerfile = "FROM busybox\\nCOPY here /\\nRUN cat /here\\n";
        engine.shell(&format!("printf '{dockerfile}' | {DOCKER} build --no-cache -f- s 2>&1")).says("from the folder");
        engine.write("other/Else", "FROM busybox\nCOPY here /\nRUN echo else; cat /here\n");
        build(engine, "--no-cache -f other/Else s").says(" else\n").says("from the folder");
        engine.shell(&format!("printf 'FROM busybox\\nRUN echo alone\\n' | {DOCKER} build --no-cache - 2>&1"))
            .says(" alone\n");
        engine.write("s/Dockerfile", "FROM busybox\nCOPY here /\nRUN echo packed; cat /here\n");
        engine.shell(&format!("tar -C s -c . | {DOCKER} build --no-cache - 2>&1")).says(" packed\n").says("from the folder");
    }

    fn outputs_go_to_the_client(engine: &Engine) {
        engine.write("o/data", "exported\n");
        engine.write("o/Dockerfile", "FROM busybox AS base\nFROM scratch\nCOPY data /d/data\nCOPY --from=base /bin/echo /bin/\n");
        build(engine, "-o out o").ok();
        engine.shell("cat out/d/data && test -x out/bin/echo").says("exported");
        build(engine, "-o type=tar,dest=out.tar o").ok();
        engine.shell("tar tf out.tar").says("d/data").says("bin/echo");
        engine.shell(&format!("{DOCKER} build -q -o - o | tar xO d/data")).says("exported");
    }

    fn arguments_targets_and_labels(engine: &Engine) {
        engine.write("a/Dockerfile", concat!(
            "ARG BASE=nothing\nFROM ${BASE} AS one\nARG WHO\nRUN echo \"hello $WHO\" > /who\nCMD [\"cat\", \"/who\"]\n",
            "FROM one AS two\nRUN false\n",
        ));
        build(engine, "--build-arg BASE=busybox --build-arg WHO=you --label a=b --target one -t arg a").ok();
        engine.docker(&["run", "--rm", "arg"]).says("hello you");
        engine.docker(&["inspect", "-f", "{{.Config.Labels.a}}", "arg"]).says("b");
    }

    fn secrets_are_read_and_not_kept(engine: &Engine) {
        let secret = "s3cret-of-the-client";
        engine.write("token", secret);
        engine.write("sec/Dockerfile", concat!(
            "FROM busybox\nRUN --mount=type=secret,id=x,required sha256sum < /run/secrets/x | tee /hash\n",
            "RUN ! grep . /run/secrets/x\n",
        ));
        let built = build(engine, "--no-cache --secret id=x,src=token -t kept sec");
        let hash = kit::sha256(secret.as_bytes());
        built.says(&hash).hides(secret);
        engine.shell("docker history --no-trunc kept").says("sha256sum < /run/secrets/x").hides(secret);
        engine.docker(&["inspect", "kept"]).says("Config").hides(secret);
        engine.docker(&["create", "--name", "files", "kept"]).ok();
        engine.shell(&format!("docker export files > files.tar && grep -aq {hash} files.tar")).ok();
        engine.shell(&format!("grep -aq {secret} files.tar")).fails(1, "");
        engine.docker(&["rm", "files"]).ok();
        if engine.is_boxyard() {
            assert!(!engine.boxyard().log().contains(secret), "a secret in a log");
        }
        // A secret does not count for what is cached.
        engine.write("token", "another");
        let again = build(engine, "--secret id=x,src=token sec");
        assert_eq!(cached(&again).len(), 2, "{again}");
        fails(engine, "--no-cache sec", "not found");
        fails(engine, "--secret id=x,src=nowhere sec", "nowhere: no such file or directory");
    }

    fn failures_say_why(engine: &Engine) {
        engine.write("f/Dockerfile", "FROM busybox\nRUN echo before; exit 3\nRUN echo never\n");
        let failed = fails(engine, "--no-cache f", "exit code: 3");
        assert!(failed.contains(" before\n") && !failed.contains(" never\n"), "{failed}");
        for (dockerfile, args, why) in [
            ("FROM busybox\nCOPY nothing /\n", "f", "not found"),
            ("FROM busybox\nFRUN x\n", "f", "unknown instruction: FRUN"),
            ("", "f", "Dockerfile cannot be empty"),
            ("FROM busybox\n", "--target nowhere f", "target stage nowhere could not be found"),
            ("FROM busybox\n", "-f nowhere f", "nowhere: no such file or directory"),
        ] {
            engine.write("f/Dockerfile", dockerfile);
            fails(engine, args, why);
        }
    }

    fn a_client_that_leaves_ends_its_build(engine: &Engine) {
        // Flows on both engines may run at the same time.
        let seconds = if engine.is_boxyard() { 987 } else { 986 };
        engine.write("l/Dockerfile", format!("FROM busybox\nRUN echo begun; sleep {seconds}\n"));
        let line = concat!(
            "build --no-cache l > left.txt 2>&1 & ",
            "until grep -q ' begun$' left.txt; do kill -0 $! || exit 8; sleep 0.2; done; kill -9 $!; ",
            "for turn in $(seq 100); do pgrep -fx 'sleep SECONDS' > /dev/null || exit 0; sleep 0.1; done; exit 9",
        );
        engine.shell(&format!("{DOCKER} {}", line.replace("SECONDS", &seconds.to_string()))).ok();
    }
}
