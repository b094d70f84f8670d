//! `boxyard build`: a build by a session, its progress, and what it leaves on the client.

use std::fs;

use e2e::session::{build, start};

#[test]
fn a_build_tells_its_steps_and_finds_them_again() {
    let (boxyard, folder) = start();
    fs::write(folder.join("src/a"), "one\n").expect("a file");
    fs::write(folder.join("ignored"), "x").expect("a file");
    fs::write(folder.join(".dockerignore"), "ignored\n").expect("a file");
    let dockerfile = "# syntax=docker/dockerfile:1\nFROM busybox AS base\nARG WORD=hello\nRUN echo $WORD > /word\n\
                      FROM busybox AS unneeded\nRUN false\nFROM base\nWORKDIR /app\nCOPY . .\n\
                      RUN cat src/a && ls && echo more >&2\nCMD [\"cat\", \"/word\"]\n";
    fs::write(folder.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let iidfile = folder.with_file_name("iid");
    let iid = iidfile.to_string_lossy();
    let first = build(&boxyard, &folder, &["-t", "made", "--iidfile", &iid, "--build-arg", "WORD=hi"]);
    first.ok();
    let log = &first.stderr;
    for expected in ["load build definition from Dockerfile", "RUN cat src/a", " one\n", " more\n", " DONE "] {
        assert!(log.contains(expected), "{expected}: {first}");
    }
    assert!(!log.contains("unneeded") && !log.contains("ignored"), "{first}");
    let id = fs::read_to_string(&iidfile).expect("the image's id");
    assert_eq!(boxyard.docker(&["image", "inspect", "-f", "{{.Id}}", "made"]).ok().trim(), id);
    assert_eq!(boxyard.docker(&["run", "--rm", "made"]).ok(), "hi");
    assert_eq!(boxyard.docker(&["run", "--rm", "made", "ls", "/app"]).ok(), "Dockerfile\nsrc");
    let again = build(&boxyard, &folder, &["-q", "--build-arg", "WORD=hi"]);
    assert_eq!(again.ok().trim(), id, "the same image");
    let cached = build(&boxyard, &folder, &["--build-arg", "WORD=hi"]);
    cached.ok();
    assert!(cached.stderr.matches(" CACHED\n").count() >= 3, "{cached}");
    // Only the times of a file have changed: nothing is built anew.
    fs::write(folder.join("src/a"), "one\n").expect("a file");
    assert!(!build(&boxyard, &folder, &["--build-arg", "WORD=hi"]).stderr.contains(" one\n"));
    // What one client has built, another finds.
    let mut docker = kit::session_client(boxyard.socket());
    docker.args(["build", "--progress", "plain", "--build-arg", "WORD=hi"]).arg(&folder);
    let found = docker.output().expect("docker");
    let log = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success() && log.matches(" CACHED\n").count() >= 4, "{log}");
    // The same files in a tar are the same input, whatever they came in.
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(&folder).args(["--exclude", "./ignored", "-c", "."]);
    let tar = tar.output().expect("tar").stdout;
    let args = ["build", "--progress", "plain", "--build-arg", "WORD=hi", "-"];
    let packed = kit::run_command(&mut kit::session_client(boxyard.socket()), &args, Some(&tar));
    packed.ok();
    assert!(packed.stderr.matches(" CACHED\n").count() >= 4, "{packed}");
    fs::write(folder.join("src/a"), "two\n").expect("a file");
    let explained = build(&boxyard, &folder, &["--build-arg", "WORD=hi", "--explain"]);
    explained.ok();
    assert!(explained.stderr.contains("    file src/a changed\n"), "{explained}");
    let anew = build(&boxyard, &folder, &["--build-arg", "WORD=hi", "--explain", "--no-cache"]);
    anew.ok();
    assert!(anew.stderr.contains("    the cache was not to be used\n"), "{anew}");
}

#[test]
fn a_failed_step_is_shown_with_its_lines() {
    let (boxyard, folder) = start();
    let dockerfile = "FROM busybox\nRUN echo before && \\\n    exit 3\nCMD [\"true\"]\n";
    fs::write(folder.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let failed = build(&boxyard, &folder, &[]);
    failed.fails(1, "ERROR: failed to solve: process \"/bin/sh -c echo before &&     exit 3\" did not complete successfully: exit code: 3");
    let excerpt = "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo before && \\\n   3 | >>>     exit 3\n   4 |     CMD [\"true\"]\n--------------------\n";
    assert!(failed.stderr.contains(excerpt), "{failed}");
    assert!(failed.stderr.contains(" before\n------\n"), "{failed}");
    fs::write(folder.join("Dockerfile"), "FROM busybox\nRUM x\n").expect("a Dockerfile");
    let message = "dockerfile parse error on line 2: unknown instruction: RUM (did you mean RUN?)";
    build(&boxyard, &folder, &[]).fails(1, message);
    fs::write(folder.join("Dockerfile"), "FROM busybox\nCOPY nothing /\n").expect("a Dockerfile");
    build(&boxyard, &folder, &[]).fails(1, "\"/nothing\": not found");
    fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN --mount=type=bnd,target=/x true\n").expect("a Dockerfile");
    let failed = build(&boxyard, &folder, &[]);
    failed.fails(1, "failed to solve: unsupported mount type \"bnd\" (did you mean bind?)");
    assert!(failed.stderr.contains("   2 | >>> RUN --mount=type=bnd,target=/x true\n"), "{failed}");
}

#[test]
fn a_step_without_enough_memory() {
    let (boxyard, folder) = start();
    let with_memory = |dockerfile: &str| {
        fs::write(folder.join("Dockerfile"), dockerfile).expect("a Dockerfile");
        build(&boxyard, &folder, &["--memory", "24m", "--memory-swap", "24m"])
    };
    let process = "process \"/bin/sh -c tail /dev/zero\" did not complete successfully: cannot allocate memory";
    with_memory("FROM busybox\nRUN tail /dev/zero\n").fails(1, process);
    with_memory("FROM busybox\nRUN tail /dev/zero || echo went on > /x\nRUN cat /x\n").ok();
    with_memory("FROM busybox\nRUN (sleep 9 & kill -9 $!; wait $!)\n")
        .fails(1, "did not complete successfully: exit code: 137");
}

#[test]
fn a_detached_build_goes_on_alone() {
    let (boxyard, folder) = start();
    fs::write(folder.join("src/a"), "one\n").expect("a file");
    fs::write(folder.join("Dockerfile"), "FROM busybox\nCOPY src /src\nRUN cat /src/a\n").expect("a Dockerfile");
    let detached = build(&boxyard, &folder, &["--detach", "-t", "alone"]);
    let id = detached.ok().to_owned();
    assert_eq!(id.len(), 32, "{detached}");
    boxyard.boxyard(&["build", "attach", &id]).ok();
    assert_eq!(boxyard.docker(&["run", "--rm", "alone", "cat", "/src/a"]).ok(), "one");
    build(&boxyard, &folder, &["--detach", "--secret", "id=x,env=HOME"]).fails(1, "--detach leaves nobody");
}

#[test]
fn what_a_dockerfile_offers_and_what_is_wrong_with_it() {
    let (boxyard, folder) = start();
    let dockerfile = "# WORD to say\nARG WORD=hi\n# base is where it begins\nFROM busybox as base\nFROM base AS last\n\
                      ARG WORD\nRUN --mount=type=secret,id=token,required true\n";
    fs::write(folder.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let checked = build(&boxyard, &folder, &["--check"]);
    checked.fails(1, "Check complete, 1 warning has been found!\n\nWARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n'as' and 'FROM' keywords' casing do not match\nDockerfile:4\n");
    let outline = build(&boxyard, &folder, &["--call", "outline"]);
    outline
        .says("BUILD ARG   VALUE   DESCRIPTION\nWORD        hi      to say\n")
        .says("SECRET   REQUIRED\ntoken    true\n");
    let targets = build(&boxyard, &folder, &["--call", "targets"]);
    targets.says("TARGET           DESCRIPTION\nbase             is where it begins\nlast (default)\n");
    fs::write(folder.join("Dockerfile"), "# check=error=true\nFROM busybox as base\n").expect("a Dockerfile");
    build(&boxyard, &folder, &[]).fails(1, "lint violation found for rules: FromAsCasing");
    fs::write(folder.join("Dockerfile"), "FROM busybox as base\nRUN true\n").expect("a Dockerfile");
    let warned = build(&boxyard, &folder, &[]);
    warned.ok();
    let warning = "\n 1 warning found:\n - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n";
    assert!(warned.stderr.contains(warning), "{warned}");
}

/// What the checks know of base images and of the ignore file; and what is wrong late in a stage is told before anything
/// of it runs.
#[test]
fn checks_know_the_base_image_and_the_ignore_file() {
    let (boxyard, folder) = start();
    let file = |text: &str| fs::write(folder.join("Dockerfile"), text).expect("a Dockerfile");
    file("FROM busybox\nENV SET_BELOW=/srv\nSHELL [\"/bin/sh\", \"-ec\"]\nCMD true\n");
    build(&boxyard, &folder, &["-t", "below"]).ok();
    fs::write(folder.join(".dockerignore"), "left\n").expect("an ignore file");
    let text = "FROM below AS one\nWORKDIR $SET_BELOW\nWORKDIR $SET_BELOV\nCMD a\n\
                FROM one\nCOPY left /\nFROM busybox\nCMD b\n";
    file(&format!("# check=experimental=CopyIgnoredFile\n{text}"));
    let checked = build(&boxyard, &folder, &["--check"]);
    checked.fails(1, "Check complete, 3 warnings have been found!");
    for warning in [
        "Usage of undefined variable '$SET_BELOV' (did you mean $SET_BELOW?)\nDockerfile:4\n",
        "Attempting to Copy file \"left\" that is excluded by .dockerignore\nDockerfile:7\n",
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\nDockerfile:9\n",
    ] {
        assert!(checked.stdout.contains(warning), "{warning}: {checked}");
    }
    build(&boxyard, &folder, &["--check", "--target", "one"]).fails(1, "Check complete, 1 warning has been found!");
    file("# check=skip=UndefinedVar,JSONArgsRecommended\nFROM below\nWORKDIR $NONE/x\nCMD a\n");
    build(&boxyard, &folder, &["--check"]).says("Check complete, no warnings found.");
    file("FROM nowhere.invalid/image\nCMD a\n");
    build(&boxyard, &folder, &["--check"]).fails(1, "nowhere.invalid/image");
    file("# check=error=true\nFROM below\nWORKDIR $NONE/x\nRUN touch /ran\n");
    let failed = build(&boxyard, &folder, &[]);
    failed.fails(1, "lint violation found for rules: UndefinedVar");
    assert!(!failed.stderr.contains("RUN touch"), "{failed}");
    file("FROM busybox\nWORKDIR $NONE/x\n");
    let warned = build(&boxyard, &folder, &[]);
    warned.ok();
    assert!(warned.stderr.contains(" - UndefinedVar: Usage of undefined variable '$NONE' (line 2)\n"), "{warned}");
    file("FROM busybox\nRUN echo began\nSTOPSIGNAL NONSENSE\n");
    let failed = build(&boxyard, &folder, &[]);
    failed.fails(1, "invalid signal: NONSENSE");
    assert!(!failed.stderr.contains("] RUN echo began"), "it is told before any command runs: {failed}");
}

#[test]
fn secrets_and_outputs_of_the_client() {
    let (boxyard, folder) = start();
    fs::write(folder.join("data"), "of the context\n").expect("a file");
    fs::write(folder.join("token"), "s3cret\n").expect("a file");
    fs::write(folder.join(".dockerignore"), "token\n").expect("a file");
    let dockerfile = "FROM busybox AS made\nCOPY data /out/data\n\
                      RUN --mount=type=secret,id=token wc -c < /run/secrets/token > /out/size\n\
                      RUN ! test -e /run/secrets/token\nFROM scratch\nCOPY --from=made /out /\n";
    fs::write(folder.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let (out, token) = (folder.with_file_name("out"), folder.join("token"));
    let flags = ["--secret", &format!("id=token,src={}", token.display()), "-o", &out.to_string_lossy()];
    let built = build(&boxyard, &folder, &flags);
    built.ok();
    assert!(!built.stderr.contains("s3cret"), "{built}");
    assert_eq!(fs::read_to_string(out.join("data")).expect("an output"), "of the context\n");
    assert_eq!(fs::read_to_string(out.join("size")).expect("an output"), "7\n");
    let tar = folder.with_file_name("out.tar");
    build(&boxyard, &folder, &[&flags[..2], &["-o", &format!("type=tar,dest={}", tar.display())]].concat()).ok();
    let mut archive = tar::Archive::new(fs::File::open(&tar).expect("a tar"));
    let names: Vec<_> = archive
        .entries()
        .expect("entries")
        .map(|e| e.expect("an entry").path().expect("a path").into_owned())
        .collect();
    assert!(names.iter().any(|name| name.ends_with("data")), "{names:?}");
    fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN --mount=type=secret,id=none,required true\n")
        .expect("a Dockerfile");
    build(&boxyard, &folder, &[]).fails(1, "secret none: not found");
    build(&boxyard, &folder, &["--secret", "id=x,src=/nosuch"])
        .fails(1, "failed to stat /nosuch: no such file or directory");
}

#[test]
fn named_folders_of_the_client() {
    let (boxyard, folder) = start();
    let named = folder.with_file_name("named");
    fs::create_dir_all(named.join("sub")).expect("folders");
    for (name, content) in
        [("a", "of the folder\n"), ("sub/b", "first\n"), ("ignored", "x"), (".dockerignore", "/ignored\n")]
    {
        fs::write(named.join(name), content).expect("a file");
    }
    fs::write(folder.join("a"), "of the context\n").expect("a file");
    let dockerfile = "FROM busybox AS made\nCOPY --from=lib a /lib-a\nRUN cat /lib-a && echo cop''ied\n\
                      RUN --mount=from=lib,target=/m cat /m/sub/b && ls /m && echo moun''ted\n\
                      FROM lib\nCOPY --from=made /lib-a /again\nCOPY a /own\n";
    fs::write(folder.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let (lib, out) = (format!("lib={}", named.display()), folder.with_file_name("out"));
    let flags = ["--build-context", &lib, "-o", &out.to_string_lossy()];
    let built = || {
        let built = build(&boxyard, &folder, &flags);
        built.ok();
        built.stderr
    };
    let first = built();
    let told =
        ["[context lib] load from client", " of the folder\n", " copied\n", " first\n", " mounted\n", "FROM lib\n"];
    for expected in told {
        assert!(first.contains(expected), "{expected}: {first}");
    }
    assert!(!first.contains(" ignored\n"), "{first}");
    let content = |name: &str| fs::read_to_string(out.join(name)).ok();
    let expected =
        [("again", "of the folder\n"), ("a", "of the folder\n"), ("own", "of the context\n"), ("sub/b", "first\n")];
    for (name, expected) in expected {
        assert_eq!(content(name).as_deref(), Some(expected), "{name}: {first}");
    }
    assert_eq!(content("ignored"), None, "{first}");
    // What is left out does not count.
    fs::write(named.join("ignored"), "other").expect("a file");
    let again = built();
    assert!(!again.contains(" copied\n") && !again.contains(" mounted\n"), "{again}");
    // What a step reads does: the mount holds the file, the copied one is another.
    fs::write(named.join("sub/b"), "second\n").expect("a file");
    let changed = built();
    assert!(!changed.contains(" copied\n") && changed.contains(" second\n"), "{changed}");
    assert_eq!(content("sub/b").as_deref(), Some("second\n"), "{changed}");
    // One may be called as the build's own folder is.
    fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY a /own\nCOPY --from=context a /named\n").expect("written");
    let flags = ["--build-context", &format!("context={}", named.display()), flags[2], flags[3]];
    build(&boxyard, &folder, &flags).ok();
    assert_eq!(content("own").as_deref(), Some("of the context\n"));
    assert_eq!(content("named").as_deref(), Some("of the folder\n"));
}
