//! Builds on real containers.

mod farm;
mod graph;
mod outputs;

use std::time::{Duration, Instant};

use farm::Farm;

#[tokio::test(flavor = "multi_thread")]
async fn the_classic_builder() {
    let farm = Farm::start().await;
    output_and_cache(&farm).await;
    instructions(&farm).await;
    copying(&farm).await;
    heredocs(&farm).await;
    stages(&farm).await;
    arguments(&farm).await;
    triggers(&farm).await;
    failures(&farm).await;
    layers_hold_only_what_a_step_changed(&farm).await;
    assert_eq!(farm.mounts(), Vec::<String>::new());
}

async fn output_and_cache(farm: &Farm) {
    let dockerfile = "FROM busybox\nMAINTAINER shilps\nRUN echo hello; echo oops >&2\nCMD [\"echo\", \"hi\"]\n";
    let first = farm.build(dockerfile, &[]).await.built();
    let id = |text: &str| text.trim_start_matches(" ---> ").trim().to_owned();
    let lines: Vec<&str> = first.messages.iter().map(String::as_str).collect();
    assert_eq!(lines[..2], ["Step 1/4 : FROM busybox", "\n"]);
    assert_eq!(id(lines[2]).len(), 12);
    assert_eq!(lines[3], "Step 2/4 : MAINTAINER shilps");
    assert!(lines[5].starts_with(" ---> Running in "));
    assert_eq!(lines[6], lines[5].replace(" ---> Running in", " ---> Removed intermediate container"));
    first.says("hello\n").says("\x1b[91moops\n\x1b[0m");
    let image = first.image.as_ref().expect("an image");
    assert_eq!(first.aux, std::slice::from_ref(&image.id));
    first.says(&format!("Successfully built {}\nSuccessfully tagged made:latest\n", &image.id[7..19]));
    assert_eq!(first.config().author, "shilps");
    assert_eq!(
        first.history()[1..],
        [
            "/bin/sh -c #(nop)  MAINTAINER shilps",
            "/bin/sh -c echo hello; echo oops >&2",
            "/bin/sh -c #(nop)  CMD [\"echo\" \"hi\"]",
        ]
    );
    let again = farm.build(dockerfile, &[]).await.built();
    assert_eq!(again.text().matches(" ---> Using cache\n").count(), 3);
    assert_eq!(again.image.expect("an image").id, image.id);
    let quiet = proto::BuildOptions { quiet: true, ..Default::default() };
    let quiet = farm.build_with(dockerfile, &[], quiet).await.built();
    assert_eq!(quiet.messages, [format!("{}\n", image.id)]);
}

async fn instructions(farm: &Farm) {
    let built = farm
        .build(
            "FROM busybox\nENV A=1 B=\"x y\"\nWORKDIR /w\nWORKDIR d\nRUN echo $A-$B > f; pwd; cat f\nUSER app\n\
             RUN id; echo $HOME\nVOLUME /v\nEXPOSE 80\nLABEL l=$A\nSTOPSIGNAL 9\nHEALTHCHECK NONE\n\
             SHELL [\"/bin/sh\", \"-ec\"]\nENTRYPOINT echo x\n",
            &[],
        )
        .await
        .built();
    built.says("/w/d\n1-x y\n").says("uid=1000(app) gid=1001(app)").says("/home/app");
    let config = built.config().config;
    assert_eq!(config.working_dir, "/w/d");
    assert_eq!(config.entrypoint.expect("set"), ["/bin/sh", "-ec", "echo x"]);
    assert_eq!(config.cmd, None);
    assert_eq!(config.labels["l"], "1");
    assert_eq!(config.shell.expect("set"), ["/bin/sh", "-ec"]);
    let volume = farm
        .build("FROM busybox\nRUN mkdir /v && echo a >/v/a\nVOLUME /v\nRUN echo b >/v/b; ls /v\nRUN ls /v\n", &[])
        .await
        .built();
    volume.says("a\nb\n");
    let last = volume.messages.iter().rposition(|text| text == "a\n").expect("the last step's output");
    assert_ne!(volume.messages[last + 1], "b\n", "what is written to a volume is gone");
}

async fn copying(farm: &Farm) {
    let files = [("a.txt", "a"), ("b.txt", "b"), ("d/x", "x"), ("d/s/y", "y")];
    let show = "\nRUN cd /dst; for f in $(busybox find . | busybox sort); do stat -c '%n %u:%g %a' $f; done\n";
    for (instruction, expected) in [
        ("COPY a.txt /dst/", "a.txt 0:0 644"),
        ("COPY *.txt /dst/", "./b.txt 0:0 644"),
        ("COPY d /dst", "./s/y 0:0 644"),
        ("COPY --chown=app d /dst/q", "./q/s 1000:1001"),
        ("COPY --chown=7 --chmod=600 a.txt /dst/", "a.txt 7:7 600"),
        ("WORKDIR /dst\nCOPY a.txt sub/", "sub/a.txt"),
        ("COPY <<EOF a.txt /dst/\nhi\nEOF", "./EOF 0:0 644"),
        ("RUN mkdir /real && ln -s /real /dst\nCOPY a.txt /dst/", "./a.txt"),
    ] {
        farm.build(&format!("FROM busybox\n{instruction}{show}"), &files).await.built().says(expected);
    }
    for (instruction, error) in [
        (
            "COPY nope /x",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
        ),
        ("COPY n* /x", "COPY failed: no source files were specified"),
        ("COPY ../x /x", "COPY failed: forbidden path outside the build context: ../x ()"),
        (
            "COPY a.txt b.txt /x",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        (
            "COPY --chown=no a.txt /x",
            "unable to convert uid/gid chown string to host mapping: can't find uid for user no: no such user: no",
        ),
        ("COPY http://x/y /x", "COPY failed: source can't be a URL for COPY"),
        ("RUN touch /x\nCOPY d /x", "failed to copy files: failed to copy directory: mkdir /x: not a directory"),
    ] {
        farm.build(&format!("FROM busybox\n{instruction}\n"), &files).await.fails(error);
    }
    let first = farm.build("FROM busybox\nCOPY a.txt /a\nCOPY b.txt /b\nRUN cat /a /b\n", &files).await.built();
    let changed = [("a.txt", "a"), ("b.txt", "changed")];
    let second = farm.build("FROM busybox\nCOPY a.txt /a\nCOPY b.txt /b\nRUN cat /a /b\n", &changed).await.built();
    assert_eq!(second.text().matches("Using cache").count(), 1, "only what is below the change");
    assert_ne!(first.image.expect("one").id, second.image.expect("another").id);
}

async fn heredocs(farm: &Farm) {
    let built = farm
        .build("FROM busybox\nRUN <<EOF\necho a\necho $((1+1))\nEOF\nRUN <<X\n#!/bin/cat\nas it is\nX\nCOPY <<\"Y\" /y\n$HOME\nY\nRUN cat /y\n", &[])
        .await
        .built();
    built.says("a\n2\n").says("#!/bin/cat\nas it is\n").says("$HOME\n");
}

async fn stages(farm: &Farm) {
    let dockerfile = "FROM busybox AS one\nRUN echo 1 > /f\nFROM scratch AS two\nCOPY --from=one /f /g\n\
        FROM busybox\nCOPY --from=1 /g /h\nCOPY --from=busybox /etc/group /i\nRUN cat /h /i\n";
    let built = farm.build(dockerfile, &[]).await.built();
    built.says("1\nroot:x:0:").says(" ---> \n");
    assert_eq!(built.aux.len(), 3);
    let target = proto::BuildOptions { target: "two".to_owned(), ..Default::default() };
    let two = farm.build_with(dockerfile, &[], target).await.built();
    assert_eq!(two.image.as_ref().expect("an image").layers.len(), 1);
    for (dockerfile, error) in [
        ("FROM busybox\nCOPY --from=0 /a /b\n", "invalid from flag value 0: refers to current build stage"),
        ("FROM busybox\nCOPY --from=7 /a /b\n", "invalid from flag value 7: index out of bounds"),
        ("FROM busybox\nCOPY --from=no /a /b\n", "invalid from flag value no: No such image: no"),
        ("FROM busybox AS a\nFROM busybox\nCOPY --from=a /nope /b\n", "COPY failed: stat nope: file does not exist"),
        ("FROM scratch\n", "No image was generated. Is your Dockerfile empty?"),
        ("FROM busybox AS a\nFROM busybox AS a\n", "a stage name already used"),
    ] {
        farm.build(dockerfile, &[]).await.fails(error);
    }
}

async fn arguments(farm: &Farm) {
    let given = |pairs: &[(&str, &str)]| proto::BuildOptions {
        build_args: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        labels: [("z".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    let dockerfile = "ARG BASE=busybox\nFROM $BASE\nARG X=1\nARG Y\nENV E=$X\nRUN echo $X $Y $E $HTTP_PROXY\n";
    let options = given(&[("X", "2"), ("HTTP_PROXY", "p"), ("UNUSED", "u")]);
    let built = farm.build_with(dockerfile, &[], options).await.built();
    built.says("2 2 p\n").says("[Warning] One or more build-args [UNUSED] were not consumed\n");
    built.says("Step 7/7 : LABEL z=1");
    let history = built.history();
    assert_eq!(history[history.len() - 2], "|1 X=2 /bin/sh -c echo $X $Y $E $HTTP_PROXY");
    let other = farm.build_with(dockerfile, &[], given(&[("X", "3")])).await.built();
    other.says("3 3\n");
}

async fn triggers(farm: &Farm) {
    let parent = farm.build("FROM busybox\nONBUILD RUN echo one\nONBUILD COPY a.txt /o\n", &[]).await.built();
    farm.add_image("parent", parent.image.expect("an image"));
    let child = farm.build("FROM parent\nRUN cat /o\n", &[("a.txt", "from the context")]).await.built();
    child.says("Step 1/2 : FROM parent\n# Executing 2 build triggers\n ---> Running in ").says("from the context");
    assert!(child.config().config.on_build.is_empty());
}

async fn failures(farm: &Farm) {
    let failed = farm.build("FROM busybox\nRUN exit 3\n", &[]).await;
    failed.fails("The command '/bin/sh -c exit 3' returned a non-zero code: 3");
    assert_eq!(failed.error.as_ref().map(|(_, code)| *code), Some(3));
    assert!(!failed.text().contains("Removed intermediate container"));
    farm.build("FROM busybox\nRUN echo kept > /k\nRUN false\n", &[]).await;
    let next = farm.build("FROM busybox\nRUN echo kept > /k\n", &[]).await.built();
    next.says("Using cache");
    let layer = next.image.as_ref().expect("an image").layers[1].blob.clone().expect("a blob");
    let digest = layer.digest.parse().expect("a digest");
    assert_eq!(farm.store.has(&digest, None).await.expect("asked"), Some(layer.size), "what is recorded is stored");
    farm.build("FRM x\n", &[])
        .await
        .fails("dockerfile parse error on line 1: unknown instruction: FRM (did you mean FROM?)");
    farm.build("", &[]).await.fails("the Dockerfile (Dockerfile) cannot be empty");
    farm.build("FROM nosuch\n", &[]).await.fails("No such image: nosuch");
    farm.build("FROM Busybox\n", &[])
        .await
        .fails("invalid reference format: repository name (library/Busybox) must be lowercase");
    farm.build("FROM busybox\nRUN --mount=type=cache,target=/x true\n", &[]).await.fails(
        "the --mount option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled",
    );
}

async fn layers_hold_only_what_a_step_changed(farm: &Farm) {
    let built = farm.build("FROM busybox\nRUN id\nRUN echo x > /etc/new; rm /etc/group\nRUN true\n", &[]).await.built();
    let config = built.config();
    let empty: Vec<bool> = config.history.iter().map(|entry| entry.empty_layer).collect();
    assert_eq!(empty, [false, true, false, true], "a step that changes nothing makes no layer");
    let layer = built.image.as_ref().expect("an image").layers[1].clone();
    let digest = layer.blob.expect("a blob").digest.parse().expect("a digest");
    let tar = farm.store.get_bytes(&digest, 1 << 20).await.expect("stored");
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut names: Vec<String> = archive
        .entries()
        .expect("a tar")
        .map(|entry| entry.expect("entry").path().expect("path").display().to_string())
        .collect();
    names.sort();
    assert_eq!(names, ["etc/", "etc/.wh.group", "etc/new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_leaves_nothing() {
    let farm = Farm::start().await;
    // Nobody else on the machine sleeps so long.
    let sleep = format!("sleep 1000{}", std::process::id());
    let context = context(&format!("FROM busybox\nRUN echo started; {sleep}\n"));
    let id = farm.enqueue(&context, proto::BuildOptions::default()).await;
    farm.wait_for(&id, "started\n").await;
    wait_until_running(&sleep).await;
    let asked = Instant::now();
    farm.cancel(&id).await;
    farm.follow(&id).await.fails("the build was cancelled");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert_eq!(farm.mounts(), Vec::<String>::new());
    assert!(!is_running(&sleep));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_leaves_no_process_and_its_next_start_sweeps() {
    let mut farm = Farm::start().await;
    // Nobody else on the machine sleeps so long.
    let sleep = format!("sleep 1001{}", std::process::id());
    let context = context(&format!("FROM busybox\nRUN echo started; {sleep}\n"));
    let id = farm.enqueue(&context, proto::BuildOptions::default()).await;
    farm.wait_for(&id, "started\n").await;
    wait_until_running(&sleep).await;
    assert!(!farm.mounts().is_empty());
    farm.restart_worker();
    farm.build("FROM busybox\nRUN echo next\n", &[]).await.built().says("next\n");
    assert!(!is_running(&sleep));
    assert_eq!(farm.mounts(), Vec::<String>::new());
    assert!(!farm.folder.path().join("worker/b").join(id).exists());
}

fn context(dockerfile: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "Dockerfile", dockerfile.as_bytes()).expect("entry");
    tar.into_inner().expect("a tar")
}

async fn wait_until_running(command: &str) {
    let wait = async {
        while !is_running(command) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the step's process runs");
}

fn is_running(command: &str) -> bool {
    std::fs::read_dir("/proc").expect("processes").flatten().any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim() == command
    })
}
