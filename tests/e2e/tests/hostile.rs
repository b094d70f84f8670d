//! Hostile archives: nothing is written outside, nothing half is kept, and the engine goes on.

use std::path::Path;

use kit::{Archive, Engine, Kind, sha256};
use tar::EntryType;

const OUTSIDE: &str = "/tmp/boxyard-hostile-mark";

/// A docker-archive with one layer of these bytes and a config that says the truth about it, or not.
fn image(layer: &[u8], diff_id: &str) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
    });
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": ["l.tar"]}]);
    let mut archive = Archive::new();
    archive.file("c.json", 0o644, config.to_string().as_bytes());
    archive.file("l.tar", 0o644, layer);
    archive.file("manifest.json", 0o644, manifest.to_string().as_bytes());
    archive.finish()
}

fn layers() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = Vec::new();
    let mut add = |name, fill: &dyn Fn(&mut Archive)| {
        let mut archive = Archive::new();
        fill(&mut archive);
        all.push((name, archive.finish()));
    };
    add("dots", &|a| {
        a.file("../../../../../../../..//tmp/boxyard-hostile-mark", 0o644, b"x");
    });
    add("absolute", &|a| {
        a.file(OUTSIDE, 0o644, b"x");
    });
    add("through a link", &|a| {
        a.symlink("l", "/tmp").file("l/boxyard-hostile-mark", 0o644, b"x");
    });
    add("through two links", &|a| {
        a.symlink("a", "b").symlink("b", "../../../../../../../../tmp").file("a/boxyard-hostile-mark", 0o644, b"x");
    });
    add("hard link outside", &|a| {
        a.hard_link("passwd", "../../../../../../../../etc/passwd").file("passwd", 0o644, b"owned");
    });
    add("whiteout outside", &|a| {
        a.file("../../../../../../../../tmp/.wh.boxyard-keep", 0o644, b"");
    });
    add("whiteout of dots", &|a| {
        a.file(".wh...", 0o644, b"");
    });
    add("device", &|a| {
        a.entry("disk", EntryType::Block, 0o666, "", b"");
    });
    all
}

#[test]
fn layers_stay_inside() {
    let engine = Engine::start(Kind::Boxyard);
    engine.load_busybox();
    let _ = std::fs::remove_file(OUTSIDE);
    std::fs::write("/tmp/boxyard-keep", "keep").expect("write to /tmp");
    let passwd = std::fs::read("/etc/passwd").expect("the machine has users");
    for (name, layer) in layers() {
        let loaded = engine.docker_fed(&["load", "-q"], &image(&layer, &sha256(&layer)));
        if loaded.code == 0 {
            // What was accepted must also unpack inside.
            let _ = engine.docker(&["run", "--rm", "hostile:1", "true"]);
            let _ = engine.docker(&["rmi", "-f", "hostile:1"]);
        } else {
            assert_eq!(loaded.code, 1, "{name}: {loaded}");
        }
        assert!(!Path::new(OUTSIDE).exists(), "{name} wrote outside");
        assert!(Path::new("/tmp/boxyard-keep").exists(), "{name} deleted outside");
        assert_eq!(std::fs::read("/etc/passwd").expect("still there"), passwd, "{name} wrote through a hard link");
    }
    let _ = std::fs::remove_file("/tmp/boxyard-keep");
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "fine"]).ok(), "fine");
    engine.stop();
}

#[test]
fn lies_are_refused() {
    let engine = Engine::start(Kind::Boxyard);
    engine.load_busybox();
    let mut honest = Archive::new();
    honest.file("file", 0o644, b"content");
    let layer = honest.finish();
    let cases: &[(&str, Vec<u8>)] = &[
        ("wrong diff id", image(&layer, &sha256(b"something else"))),
        ("not an archive", b"this is no tar, and long enough to be looked at twice".repeat(40)),
        ("empty archive", Archive::new().finish()),
        ("half an archive", kit::busybox()[..700_000].to_vec()),
        ("half a gzip", [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0][..], &[7; 300]].concat()),
        ("manifest is no JSON", {
            let mut a = Archive::new();
            a.file("manifest.json", 0o644, b"{not");
            a.finish()
        }),
        ("manifest names nothing", {
            let mut a = Archive::new();
            a.file("manifest.json", 0o644, br#"[{"Config":"no.json","RepoTags":["x:1"],"Layers":["no.tar"]}]"#);
            a.finish()
        }),
        ("manifest names dots", {
            let mut a = Archive::new();
            a.file("manifest.json", 0o644, br#"[{"Config":"../../../etc/passwd","RepoTags":["x:1"],"Layers":[]}]"#);
            a.finish()
        }),
        ("manifest is a link", {
            let mut a = Archive::new();
            a.symlink("manifest.json", "/etc/passwd");
            a.finish()
        }),
    ];
    let before = engine.docker(&["images", "-aq"]).stdout;
    for (name, archive) in cases {
        let loaded = engine.docker_fed(&["load", "-q"], archive);
        assert_eq!(loaded.code, 1, "{name} must be refused\n{loaded}");
        assert!(!loaded.stderr.trim().is_empty(), "{name}: no reason given\n{loaded}");
        assert_eq!(engine.docker(&["images", "-aq"]).stdout, before, "{name} left an image");
    }
    assert_eq!(engine.docker(&["run", "--rm", "busybox", "echo", "fine"]).ok(), "fine");
    engine.stop();
}

/// Build contexts and `cp` meet the same traps.
#[test]
fn contexts_and_copies_stay_inside() {
    let engine = Engine::start(Kind::Boxyard);
    engine.load_busybox();
    let _ = std::fs::remove_file(OUTSIDE);
    let mut context = Archive::new();
    context.file("Dockerfile", 0o644, b"FROM busybox\nCOPY secret /secret\nRUN cat /secret\n");
    context.symlink("secret", "/etc/shadow");
    let built = engine.docker_fed(&["build", "-"], &context.finish());
    let shadow = std::fs::read_to_string("/etc/shadow").expect("run as root");
    let first = shadow.lines().next().unwrap_or_default();
    assert!(!built.stdout.contains(first), "a link in the context read the machine's file\n{built}");
    let mut context = Archive::new();
    context.file("../../../../../../tmp/boxyard-hostile-mark", 0o644, b"x");
    context.file("Dockerfile", 0o644, b"FROM busybox\nCOPY . /x\n");
    let _ = engine.docker_fed(&["build", "-"], &context.finish());
    assert!(!Path::new(OUTSIDE).exists(), "the context wrote outside");

    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "trap",
            "busybox",
            "sh",
            "-c",
            "ln -s /tmp /link; ln -s /etc/shadow /file; sleep 100",
        ])
        .ok();
    let mut archive = Archive::new();
    archive.file("boxyard-hostile-mark", 0o644, b"x");
    engine.docker_fed(&["cp", "-", "trap:/link"], &archive.finish()).ok();
    assert!(!Path::new(OUTSIDE).exists(), "cp followed the container's link on the machine");
    let copied = engine.docker(&["cp", "-L", "trap:/file", "-"]);
    assert!(!copied.stdout.contains(first), "cp read the machine's file");
    engine.docker(&["rm", "-f", "trap"]).ok();
    engine.stop();
}

/// A device in an image or a context is copied as one: the machine that it stands for is not read.
#[test]
fn devices_are_no_way_to_the_machine() {
    let engine = Engine::start(Kind::Boxyard);
    engine.load_busybox();
    let steps = "FROM busybox AS made\nRUN mknod /disk b 7 0 && mknod /zero c 1 5 && mkfifo /pipe && mkdir /all && mv /disk /zero \
                 /pipe /all\n\
                 FROM busybox\nCOPY --from=made /all/disk /disk\nCOPY --from=made /all/zero /all/pipe /named/\n\
                 COPY --from=made /all /all\nADD block /added\n\
                 RUN test -b /disk && test -c /named/zero && test -p /named/pipe && test -b /all/disk && test -b /added && \
                 stat -c '%t:%T' /disk && ! head -c 1 /disk\n";
    let mut context = Archive::new();
    context.file("Dockerfile", 0o644, steps.as_bytes());
    context.entry("block", EntryType::Block, 0o666, "", b"");
    let context = context.finish();
    let mut classic = kit::client(engine.socket());
    classic.env("DOCKER_BUILDKIT", "0");
    for mut client in [classic, kit::session_client(engine.socket())] {
        let built = kit::run_command(&mut client, &["build", "--no-cache", "-"], Some(&context));
        built.ok();
        let said = format!("{}{}", built.stdout, built.stderr);
        assert!(said.contains("Operation not permitted"), "{said}");
    }
    engine.stop();
}
