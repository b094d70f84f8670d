//! The classic builder: output, instructions, cache order, contexts, errors.

use kit::{Engine, on_both, on_postgres_too};

fn build(engine: &Engine, dockerfile: &str, extra: &[&str]) -> kit::Output {
    let mut args = vec!["build"];
    args.extend(extra);
    args.push("-");
    engine.docker_fed(&args, dockerfile.as_bytes())
}

on_both! {
    fn output_step_by_step(engine: &Engine) {
        let built = build(engine, "FROM busybox\nRUN echo hello\nCMD [\"true\"]\n", &["-t", "out"]);
        let lines = built.lines();
        assert_eq!(lines[1], "Step 1/3 : FROM busybox", "{built}");
        assert!(lines[2].starts_with(" ---> ") && lines[2].len() == 18, "{built}");
        assert_eq!(lines[3], "Step 2/3 : RUN echo hello", "{built}");
        assert!(lines[4].starts_with(" ---> Running in "), "{built}");
        assert_eq!(lines[5], "hello");
        assert!(built.stdout.contains("intermediate container "), "{built}");
        built.says("Successfully built ").says("Successfully tagged out:latest");
        let quiet = build(engine, "FROM busybox\nRUN echo hello\nCMD [\"true\"]\n", &["-q"]);
        assert!(quiet.ok().starts_with("sha256:") && quiet.ok().len() == 71, "{quiet}");
    }

    fn scratch_and_copy(engine: &Engine) {
        engine.write("s/hello", "hi\n");
        engine.write("s/Dockerfile", "FROM scratch\nCOPY hello /hello\nADD hello /dir/\nLABEL a=b\n");
        engine.shell("docker build -t s s").says("Step 1/4 : FROM scratch").says(" ---> \nStep 2/4");
        engine.shell("docker create --name sc s x && docker export sc | tar t").says("hello").says("dir/hello");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.Size}}", "s"]).ok(), "6");
    }

    fn cache_rebuilds_only_what_is_above(engine: &Engine) {
        engine.write("c/early", "1");
        engine.write("c/late", "1");
        engine.write("c/Dockerfile", "FROM busybox\nCOPY early /\nRUN echo middle > /m\nCOPY late /\nRUN cat /early /late\n");
        engine.shell("docker build -t c c").hides("Using cache");
        assert_eq!(engine.shell("docker build c").stdout.matches("Using cache").count(), 4);
        engine.write("c/late", "2");
        assert_eq!(engine.shell("docker build c").stdout.matches("Using cache").count(), 2, "late file changed");
        engine.write("c/early", "2");
        assert_eq!(engine.shell("docker build c").stdout.matches("Using cache").count(), 0, "early file changed");
        engine.shell("touch -d 2020-01-01 c/early");
        assert_eq!(engine.shell("docker build c").stdout.matches("Using cache").count(), 4, "times do not count");
        assert_eq!(engine.shell("docker build --no-cache c").stdout.matches("Using cache").count(), 0);
        engine.write("n/one.txt", "same");
        engine.write("n/Dockerfile", "FROM busybox\nCOPY *.txt /names/\n");
        engine.shell("docker build -t names n").hides("Using cache");
        engine.shell("mv n/one.txt n/two.txt && docker build -t names n").hides("Using cache");
        assert_eq!(engine.docker(&["run", "--rm", "names", "ls", "/names"]).ok(), "two.txt", "names count");
    }

    fn instructions(engine: &Engine) {
        engine.write("i/a.txt", "a");
        engine.write("i/b.txt", "b");
        engine.shell("mkdir -p i/sub && echo deep > i/sub/deep && tar -C i -czf i/packed.tgz sub").ok();
        engine.write("i/Dockerfile", concat!(
            "# escape=`\nARG BASE=busybox\nFROM ${BASE} AS first\nRUN echo staged > /staged\n",
            "FROM $BASE\nARG WHO=nobody\nENV GREETING=\"hello ${WHO}\" OTHER=x\n",
            "WORKDIR /work\nWORKDIR inner\nCOPY *.txt ./\nCOPY --from=first /staged /staged\n",
            "COPY --chown=guest:guest a.txt /owned\nADD packed.tgz /unpacked/\n",
            "EXPOSE 80 90/udp\nVOLUME /data\nUSER guest\nSTOPSIGNAL SIGINT\n",
            "HEALTHCHECK --interval=5s CMD true\nSHELL [\"/bin/ash\", \"-c\"]\nONBUILD ENV LATER=1\n",
            "LABEL one=\"1\" two='2'\nENTRYPOINT [\"echo\"]\nCMD [\"default\"]\n",
        ));
        engine.shell("docker build -t i --build-arg WHO=world --label three=3 i").says("Successfully tagged i:latest");
        assert_eq!(engine.docker(&["run", "--rm", "i"]).ok(), "default");
        let config = engine.api("GET", "/v1.41/images/i/json", "").json()["Config"].clone();
        assert_eq!(config["WorkingDir"], "/work/inner");
        assert_eq!(config["User"], "guest");
        assert_eq!(config["StopSignal"], "SIGINT");
        assert_eq!(config["Labels"], serde_json::json!({"one": "1", "two": "2", "three": "3"}));
        assert_eq!(config["ExposedPorts"], serde_json::json!({"80/tcp": {}, "90/udp": {}}));
        assert_eq!(config["Volumes"], serde_json::json!({"/data": {}}));
        assert_eq!(config["Shell"], serde_json::json!(["/bin/ash", "-c"]));
        assert_eq!(config["OnBuild"], serde_json::json!(["ENV LATER=1"]));
        assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_i64);
        assert!(config["Env"].to_string().contains("GREETING=hello world"), "{config}");
        let seen = engine.docker(&["run", "--rm", "--entrypoint", "sh", "i", "-c",
            "pwd; ls; cat /staged; stat -c %U /owned; cat /unpacked/sub/deep; id -u"]);
        assert_eq!(seen.ok(), "/work/inner\na.txt\nb.txt\nstaged\nguest\ndeep\n1000");
        build(engine, "FROM i\n", &["-t", "child"]).says("# Executing 1 build trigger");
        engine.docker(&["inspect", "-f", "{{.Config.Env}}", "child"]).says("LATER=1");
    }

    fn failures_say_why(engine: &Engine) {
        let failed = build(engine, "FROM busybox\nRUN exit 3\n", &[]);
        failed.fails(3, "The command '/bin/sh -c exit 3' returned a non-zero code: 3");
        build(engine, "FRM busybox\n", &[]).fails(1, "unknown instruction: FRM");
        build(engine, "", &[]).fails(1, "cannot be empty");
        build(engine, "RUN true\n", &[]).fails(1, "no build stage in current context");
        build(engine, "FROM busybox\nCOPY nosuch /\n", &[]).fails(1, "nosuch");
        build(engine, "FROM busybox\nCOPY --from=nosuch /a /\n", &[]).fails(1, "nosuch");
        build(engine, "FROM busybox\n", &["-t", "BAD NAME"]).fails(125, "invalid");
        build(engine, "FROM busybox\n", &["--target", "nosuch"]).fails(1, "nosuch");
        assert_eq!(engine.docker(&["images", "-q"]).lines().len(), 1, "failed builds leave no image");
    }

    fn ignored_files_stay_out(engine: &Engine) {
        engine.write("g/.dockerignore", "*.log\n!keep.log\nsecret\n");
        for name in ["a.log", "keep.log", "secret/key", "plain"] {
            engine.write(&format!("g/{name}"), "x");
        }
        engine.write("g/Dockerfile", "FROM busybox\nCOPY . /ctx/\nRUN ls /ctx\n");
        let built = engine.shell("docker build g");
        built.says("keep.log").says("plain");
        assert!(!built.stdout.contains("a.log") && !built.stdout.contains("secret"), "{built}");
    }

    fn stages_and_targets(engine: &Engine) {
        let dockerfile = "FROM busybox AS one\nRUN echo 1 > /1\nFROM one AS two\nRUN echo 2 > /2\nFROM two\nRUN echo 3 > /3\n";
        build(engine, dockerfile, &["-t", "t2", "--target", "two"]).says("Successfully tagged t2:latest");
        let seen = engine.docker(&["run", "--rm", "t2", "sh", "-c", "ls /1 /2; ls /3 2>&1 || true"]);
        assert!(seen.ok().contains("/1\n/2") && seen.stdout.contains("No such file"), "{seen}");
    }

    fn context_by_file_option_and_tar(engine: &Engine) {
        engine.write("f/file", "content\n");
        engine.write("f/other.Dockerfile", "FROM busybox\nCOPY file /file\nRUN cat /file\n");
        engine.shell("docker build -f f/other.Dockerfile f").says("content");
        engine.shell("mv f/other.Dockerfile f/Dockerfile && cp -r f p && echo packed > p/file").ok();
        engine.shell("tar -C p -cz . | docker build -t t -").says("\npacked\n").says("Successfully tagged t:latest");
        engine.shell("docker build -f - f < f/Dockerfile").says("Using cache");
    }

    fn step_containers_stay_where_they_are_wanted(engine: &Engine) {
        let ps = || engine.docker(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Command}} {{.State}}"]);
        build(engine, "FROM busybox\nENV A=b\nRUN echo x > /x\n", &[]).ok();
        build(engine, "FROM busybox\nRUN exit 3\n", &["--force-rm"]).fails(3, "returned a non-zero code: 3");
        assert_eq!(ps().ok(), "", "containers of steps that succeeded, or were not wanted, are gone");

        let failed = build(engine, "FROM busybox\nENV A=b\nRUN echo y > /y; rm /etc/passwd; exit 4\n", &[]);
        failed.fails(4, "returned a non-zero code: 4");
        assert_eq!(failed.stdout.matches("intermediate container").count(), 0, "ENV is cached\n{failed}");
        let running = failed.stdout.split("Running in ").nth(1).expect("a step ran")[..12].to_owned();
        let parent = failed.stdout.lines().filter_map(|line| line.strip_prefix(" ---> ")).rfind(|id| id.len() == 12);
        let listed = ps();
        let line = listed.ok();
        assert!(line.starts_with(&running) && line.contains(&format!(" sha256:{}", parent.expect("an image"))), "{listed}");
        assert!(line.ends_with("\"/bin/sh -c 'echo y > /y; rm /etc/passwd; exit 4'\" exited"), "{listed}");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.State.ExitCode}} {{.Path}} {{.Config.Env}}", &running]).ok()[..9], *"4 /bin/sh");
        let diff = engine.docker(&["diff", &running]);
        let mut changes = diff.lines();
        changes.sort_unstable();
        assert_eq!(changes, ["A /y", "C /etc", "D /etc/passwd"]);
        engine.docker(&["commit", &running, "rescued"]).ok();
        assert_eq!(engine.docker(&["run", "--rm", "rescued", "sh", "-c", "cat /y; echo $A; ls /etc/passwd 2>&1 | wc -l"]).ok(), "y\nb\n1");
        engine.docker(&["start", "-a", &running]).fails(4, "");
        engine.docker(&["rm", &running]).ok();
        assert_eq!(ps().ok(), "");

        build(engine, "FROM busybox\nRUN [\"/nosuch\"]\n", &[]).fails(1, "/nosuch");
        let never = engine.docker(&["ps", "-aq"]);
        let state = engine.docker(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.Path}}", never.ok()]);
        assert_eq!(state.ok(), "created 127 /nosuch");
        engine.docker(&["rm", never.ok()]).ok();

        let kept = build(engine, "FROM busybox\nENV C=d\nRUN echo one > /one\nCOPY . /c\nWORKDIR /w\n", &["--rm=false", "-t", "k"]);
        kept.says("Successfully tagged k:latest").hides("intermediate container");
        let states = engine.docker(&["ps", "-a", "--format", "{{.State}} {{.Command}}", "--no-trunc"]);
        assert_eq!(states.lines(), [
            "created \"/bin/sh -c '#(nop) WORKDIR /w'\"",
            "exited \"/bin/sh -c 'echo one > /one'\"",
            "created \"/bin/sh -c '#(nop) ' 'ENV C=d'\"",
        ]);
        let ids = engine.docker(&["ps", "-aq"]);
        assert_eq!(engine.docker(&["diff", ids.lines()[1]]).ok(), "A /one");
        engine.docker(&["start", "-a", ids.lines()[1]]).ok();
        assert_eq!(engine.docker(&["run", "--rm", "k", "cat", "/one"]).ok(), "one", "the layer is the image's own");
        engine.shell("docker rm $(docker ps -aq)").ok();
    }

    /// `--cache-from`: an image that came from elsewhere serves by its history; alone, none of its steps is known.
    fn cache_from_an_image_that_was_loaded(engine: &Engine) {
        let dockerfile = "FROM busybox\nRUN echo a > /a\nENV B=b\nRUN echo c > /c\n";
        build(engine, dockerfile, &["-t", "made"]).ok();
        let id = engine.docker(&["inspect", "-f", "{{.Id}}", "made"]).ok().to_owned();
        engine.shell("docker save made > made.tar && docker rmi made && docker load -q -i made.tar").ok();
        assert_eq!(build(engine, dockerfile, &["--cache-from", "nosuch"]).stdout.matches("Using cache").count(), 0);
        engine.shell("docker image prune -f").ok();
        let again = build(engine, dockerfile, &["--cache-from", "nosuch", "--cache-from", "made", "-t", "again"]);
        assert_eq!(again.stdout.matches("Using cache").count(), 3, "{again}");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.Id}}", "again"]).ok(), id);
        let more = build(engine, "FROM busybox\nRUN echo a > /a\nRUN echo other\n", &["--cache-from", "made"]);
        assert_eq!(more.stdout.matches("Using cache").count(), 1, "{more}");
        engine.docker(&["history", "again"]).says("echo c > /c");
    }
}

on_postgres_too!(cache_rebuilds_only_what_is_above, step_containers_stay_where_they_are_wanted);
