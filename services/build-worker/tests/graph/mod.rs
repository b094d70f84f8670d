//! The graph builder on one worker: a real bus, a real layer store, real containers.

use std::io::Read as _;

use crate::farm::{Farm, Outcome};

fn options() -> proto::BuildOptions {
    proto::BuildOptions { graph: true, ..Default::default() }
}

async fn build(farm: &Farm, dockerfile: &str, files: &[(&str, &str)]) -> Outcome {
    farm.build_with(dockerfile, files, options()).await
}

/// Names, modes, owners and contents of the last layer's entries.
async fn last_layer(farm: &Farm, outcome: &Outcome) -> Vec<String> {
    let layer = outcome.image.as_ref().expect("an image").layers.last().expect("a layer");
    let digest = layer.blob.as_ref().expect("a blob").digest.parse().expect("a digest");
    let bytes = farm.store.get_bytes(&digest, 64 << 20).await.expect("stored");
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut entries = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let header = entry.header().clone();
        let path = entry.path().expect("a path").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        let (mode, uid, gid) =
            (header.mode().expect("a mode"), header.uid().expect("a uid"), header.gid().expect("a gid"));
        entries.push(format!("{path} {mode:o} {uid}:{gid} {text}").trim_end().to_owned());
    }
    entries
}

#[tokio::test]
async fn a_build_is_told_recorded_and_found_again() {
    let farm = Farm::start().await;
    let dockerfile = "FROM busybox AS base\nARG WHO=world\nENV A=1\nRUN echo hello $WHO $A && echo x > /x\n\
        FROM scratch AS unneeded\nCOPY nothing /\nFROM base\nWORKDIR /w\nCOPY file .\nLABEL l=2\nCMD [\"cat\", \"/w/file\"]\n";
    let files = [("file", "content")];
    let first = build(&farm, dockerfile, &files).await.built();
    assert_eq!(first.printed(), "hello world 1\n");
    let names: Vec<&str> = first.vertices.iter().map(|vertex| vertex.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "[internal] load build definition from Dockerfile",
            "[internal] load metadata for docker.io/library/busybox:latest",
            "[base 1/2] FROM docker.io/library/busybox:latest",
            "[base 2/2] RUN echo hello $WHO $A && echo x > /x",
            "[stage-2 1/2] WORKDIR /w",
            "[stage-2 2/2] COPY file .",
            "[internal] load build context",
            "exporting to image",
        ]
    );
    assert!(first.vertices.iter().all(|vertex| vertex.completed_ns >= vertex.started_ns && vertex.started_ns > 0));
    let config = first.config();
    let history: Vec<_> =
        config.history[1..].iter().map(|entry| (entry.created_by.as_str(), entry.empty_layer)).collect();
    assert_eq!(
        history,
        [
            ("ARG WHO=world", true),
            ("ENV A=1", true),
            ("RUN |1 WHO=world /bin/sh -c echo hello $WHO $A && echo x > /x # buildkit", false),
            ("WORKDIR /w", false),
            ("COPY file . # buildkit", false),
            ("LABEL l=2", true),
            ("CMD [\"cat\" \"/w/file\"]", true),
        ]
    );
    assert_eq!(config.config.env, ["PATH=/bin", "A=1"]);
    assert_eq!(config.rootfs.diff_ids.len(), 4);
    assert!(config.created.is_some());
    let again = build(&farm, dockerfile, &files).await.built();
    assert_eq!(again.image, first.image, "everything was found");
    assert!(["RUN", "WORKDIR", "COPY"].iter().all(|step| again.vertex(step).cached), "{again:#?}");
    assert_eq!(again.printed(), "");
    let changed = build(&farm, dockerfile, &[("file", "changed")]).await.built();
    assert!(changed.vertex("WORKDIR").cached && !changed.vertex("COPY").cached);
    let inputs = |outcome: &Outcome| outcome.vertex("COPY").key_inputs.clone();
    let (was, is) = (inputs(&first), inputs(&changed));
    let other: Vec<_> = was.iter().zip(&is).filter(|(was, is)| was != is).map(|(was, _)| was.kind.as_str()).collect();
    assert_eq!(other, ["file"], "it is told what made the step run: {was:#?} {is:#?}");
    let anew = farm.build_with(dockerfile, &files, proto::BuildOptions { no_cache: true, ..options() }).await.built();
    assert!(!anew.vertex("RUN").cached);
    let latest = build(&farm, dockerfile, &files).await.built();
    assert_eq!(latest.image, anew.image, "what was made anew counts from then on");
    assert_eq!(farm.mounts(), [""; 0]);
}

#[tokio::test]
async fn failures_are_buildkits() {
    let farm = Farm::start().await;
    let failed = build(&farm, "FROM busybox\nRUN echo before >&2; exit 3\nRUN never\n", &[]).await;
    failed.fails("process \"/bin/sh -c echo before >&2; exit 3\" did not complete successfully: exit code: 3");
    assert_eq!(failed.error.as_ref().expect("an error").1, 3);
    assert_eq!((failed.printed().as_str(), failed.lines[0].stream), ("before\n", 2));
    assert!(failed.vertex("exit 3").error.ends_with("exit code: 3"));
    for (dockerfile, message) in [
        ("FROM busybox\nCOPY nope /\n", "\"/nope\": not found"),
        ("FROM busybox\nRUN --security=insecure true\n", "security.insecure is not allowed"),
        ("FROM busybox\nRUN --network=host true\n", "network.host is not allowed"),
        ("FROM absent\n", "absent: failed to resolve source metadata for docker.io/library/absent:latest"),
        ("FROM a AS x\nCOPY --from=x / /\n", "circular dependency detected on stage: x"),
        ("FROM busybox\nFOO x\n", "dockerfile parse error on line 2: unknown instruction: FOO"),
    ] {
        let failed = build(&farm, dockerfile, &[]).await;
        let (error, _) = failed.error.as_ref().unwrap_or_else(|| panic!("{dockerfile}: {failed:#?}"));
        assert!(error.contains(message), "{dockerfile}: {error}");
    }
    assert_eq!(farm.mounts(), [""; 0]);
}

#[tokio::test]
async fn files_are_copied_as_buildkit_copies() {
    let farm = Farm::start().await;
    let files = [("d/a.txt", "a"), ("d/b.md", "b"), ("d/s/c.txt", "c"), ("f", "f")];
    for (instructions, entries) in [
        (
            "COPY d /x/",
            &["x/ 755 0:0", "x/a.txt 644 0:0 a", "x/b.md 644 0:0 b", "x/s/ 755 0:0", "x/s/c.txt 644 0:0 c"][..],
        ),
        (
            "COPY --chown=app --chmod=u=rwX,go= f /n/m/",
            &["n/ 755 1000:1001", "n/m/ 755 1000:1001", "n/m/f 600 1000:1001 f"],
        ),
        ("COPY --exclude=*.md --exclude=s d /x", &["x/ 755 0:0", "x/a.txt 644 0:0 a"]),
        ("COPY --parents d/./s/*.txt /p/", &["p/ 755 0:0", "p/s/ 755 0:0", "p/s/c.txt 644 0:0 c"]),
        ("COPY --link d/*.txt /tmp/", &["tmp/ 755 0:0", "tmp/a.txt 644 0:0 a"]),
        ("COPY <<EOF /h\n$PATH\nEOF", &["h 644 0:0 /bin"]),
        ("COPY d/none* /x/", &[]),
        ("RUN --mount=target=/ctx --mount=type=tmpfs,target=/t cp /ctx/f /g && touch /t/z", &["g 644 0:0 f"]),
        ("RUN --mount=from=busybox,target=/b,rw touch /b/new && ls /b | cat > /l", &["l 644 0:0 bin\netc\nnew\ntmp"]),
        ("RUN <<EOF\n#!/bin/cat\nx\nEOF", &[]),
    ] {
        // busybox of the tests has no cp.
        let instructions = instructions.replace("cp /ctx/f /g", "cat /ctx/f > /g");
        let outcome = build(&farm, &format!("FROM busybox\n{instructions}\n"), &files).await.built();
        assert_eq!(last_layer(&farm, &outcome).await, entries, "{instructions}");
    }
    assert_eq!(farm.mounts(), [""; 0]);
}

#[tokio::test]
async fn caches_outlive_their_step_and_secrets_do_not() {
    let farm = Farm::start().await;
    let session = || proto::BuildOptions { session_gateway: "s".to_owned(), ..options() };
    let add = |text: &str, more: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,uid=5,mode=0750{more} echo {text} >> /c/f; cat /c/f; stat -c %u:%a /c\n"
        )
    };
    assert_eq!(build(&farm, &add("one", ""), &[]).await.built().printed(), "one\n5:750\n");
    let second = build(&farm, &add("two", ""), &[]).await.built();
    assert_eq!(second.printed(), "one\ntwo\n5:750\n", "another build finds what the first one left");
    assert_eq!(last_layer(&farm, &second).await, [""; 0], "a mount point is no part of the image");
    assert_eq!(build(&farm, &add("three", ",id=other"), &[]).await.built().printed(), "three\n5:750\n");
    let from = "FROM busybox\nRUN --mount=type=cache,target=/c,id=seeded,from=busybox,source=/etc ls /c\n";
    assert_eq!(build(&farm, from, &[]).await.built().printed(), "group\npasswd\n");

    // Each waits for the other's end: at once they would both find the mark.
    let locked = |name: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,target=/c,sharing=locked,id=l \\\n\
             test ! -e /c/mark && touch /c/mark && sleep 1 && rm /c/mark && touch /{name}\n"
        )
    };
    let both = format!("{}{}FROM one\nCOPY --from=two /two /\n", locked("one"), locked("two"));
    build(&farm, &both.replace("test ! -e", "[ ! -e").replace("/mark && touch /c", "/mark ] && touch /c"), &[])
        .await
        .built();

    let secret = "FROM busybox\nRUN --mount=type=secret,id=token,uid=7,mode=0440 --mount=type=secret,id=token,env=T \\\n\
        stat -c %u:%a /run/secrets/token; cat /run/secrets/token; echo \" $T\"; touch /done\n";
    let built = farm.build_with(secret, &[], session()).await.built();
    assert_eq!(built.printed(), "7:440\ns3cret s3cret\n");
    assert_eq!(last_layer(&farm, &built).await, ["done 644 0:0"]);
    let absent =
        |flag: &str| format!("FROM busybox\nRUN --mount=type=secret,id=absent{flag} ls /run/secrets 2>&1 || true\n");
    let optional = farm.build_with(&absent(""), &[], session()).await.built();
    assert!(optional.printed().contains("No such file"), "{optional:#?}");
    farm.build_with(&absent(",required"), &[], session()).await.fails("secret absent: not found");

    let written = "FROM busybox\nRUN --mount=target=/ctx,rw echo more >> /ctx/f && cat /ctx/f\nCOPY f /\n";
    let built = build(&farm, written, &[("f", "f\n")]).await.built();
    assert_eq!(built.printed(), "f\nmore\n");
    assert_eq!(last_layer(&farm, &built).await, ["f 644 0:0 f"], "what a step writes into a mount is lost");
    assert_eq!(farm.mounts(), [""; 0]);
}
