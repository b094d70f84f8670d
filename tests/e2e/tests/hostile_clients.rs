//! What a client has of a build that is not what it says: blobs of other sizes, pipes and devices in place of files; and
//! builds that it cannot ask for like this.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::session::{build, start};
use kit::{Boxyard, Client, boxyard_client, wait_until};
use serde_json::Value;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs/sha256").join(digest.as_str().expect("a digest").trim_start_matches("sha256:"))
}

/// Bytes of all blobs of the layer store.
fn stored(boxyard: &Boxyard) -> u64 {
    let usage = Client::new(boxyard.socket()).get_json("/boxyard/v1/df");
    usage["store"]["bytes"].as_u64().unwrap_or_else(|| panic!("no bytes: {usage}"))
}

#[test]
fn blobs_of_a_clients_layout_are_held_to_their_descriptors() {
    let (boxyard, folder) = start();
    fs::write(folder.join("src/a"), "of the layout\n").expect("a file");
    fs::write(folder.join("Dockerfile"), "FROM busybox\nCOPY src/a /a\nRUN cp /bin/busybox /b\n").expect("written");
    let layout = folder.with_file_name("layout");
    let out = format!("type=oci,dest={},tar=false,name=base:v1", layout.display());
    build(&boxyard, &folder, &["--no-cache", "-o", &out]).ok();
    let manifest = json(&blob(&layout, &json(&layout.join("index.json"))["manifests"][0]["digest"]));
    let layers = manifest["layers"].as_array().expect("layers");
    // The store has neither of them: they are packed here.
    let (layer, config) = (&layers[layers.len() - 1], &manifest["config"]);
    let layer_bytes = layer["size"].as_u64().expect("a size");

    // Another one, which has nothing of the image but its base.
    let (other, there) = start();
    fs::write(there.join("Dockerfile"), "FROM base\nRUN cat /a\n").expect("a Dockerfile");
    let context = format!("base=oci-layout://{}:v1", layout.display());
    let before = stored(&other);
    let refused = |path: &Path, why: &str| {
        let began = Instant::now();
        build(&other, &there, &["--build-context", &context]).fails(1, why);
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "it took {:?} to refuse {}",
            began.elapsed(),
            path.display()
        );
        // What builds leave, their logs and Dockerfiles, is small.
        wait_until("nothing of it to be left", 30, || (stored(&other) < before + layer_bytes / 2).then_some(()));
    };
    let sized = |path: &Path, bytes: u64| {
        let file = File::options().write(true).open(path).expect("the blob");
        file.set_len(bytes).expect("another size");
    };
    for (described, least) in [(layer, layer_bytes), (config, config["size"].as_u64().expect("a size"))] {
        let (path, digest) = (blob(&layout, &described["digest"]), described["digest"].as_str().expect("a digest"));
        let whole = fs::read(&path).expect("the blob");
        sized(&path, least + 1);
        refused(&path, &format!("the client has more than {least} bytes of {digest}"));
        // It would fill the disk before its digest is known.
        sized(&path, 1 << 40);
        refused(&path, &format!("the client has more than {least} bytes of {digest}"));
        sized(&path, least - 1);
        refused(&path, &format!("the client has {} of the {least} bytes of {digest}", least - 1));
        let mut spoilt = whole.clone();
        spoilt[0] ^= 1;
        fs::write(&path, &spoilt).expect("spoilt");
        refused(&path, &format!("the client has other bytes than those of {digest}"));
        fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        refused(&path, "not a regular file");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, &whole).expect("as it was");
    }
    let built = build(&other, &there, &["--build-context", &context]);
    assert!(built.stderr.contains("of the layout"), "{built}");
    built.ok();
    for boxyard in [boxyard, other] {
        boxyard.stop();
    }
}

#[test]
fn what_has_no_end_is_not_read() {
    let (boxyard, folder) = start();
    let fifo = |name: &str| {
        let path = folder.with_file_name(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        path.display().to_string()
    };
    fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s; echo\n")
        .expect("a Dockerfile");
    let pipe = fifo("pipe");
    for (flags, why) in [
        (&["--secret", "id=s,src=/dev/zero"][..], "failed to open /dev/zero: not a regular file"),
        (&["--secret", &format!("id=s,src={pipe}")], "nobody writes into the pipe"),
        (&["--ssh", "default=/dev/zero"], "failed to open /dev/zero: not a regular file"),
        (&["-f", "/dev/zero"], "open /dev/zero: not a regular file"),
    ] {
        build(&boxyard, &folder, flags).fails(1, why);
    }
    let index = folder.with_file_name("index-is-a-pipe");
    fs::create_dir(&index).expect("a folder");
    nix::unistd::mkfifo(&index.join("index.json"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let context = format!("base=oci-layout://{}", index.display());
    build(&boxyard, &folder, &["--build-context", &context]).fails(1, "not a regular file");

    // What a shell gives (`<(…)`) is a pipe into which somebody writes.
    let line = format!(
        "exec {} build --progress plain --secret id=s,src=<(printf 'only once') -f <(cat {1}/Dockerfile) {1} 2>&1",
        kit::program().display(),
        folder.display()
    );
    let mut shell = boxyard_client("bash", boxyard.socket());
    let built = kit::run_command(&mut shell, &["-c", &line], None);
    built.says(" only once");
    boxyard.stop();
}

#[test]
fn what_a_detached_build_would_need_of_its_client_is_refused() {
    let (boxyard, folder) = start();
    fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN echo detached\n").expect("a Dockerfile");
    let cache = folder.with_file_name("cache");
    let to = format!("type=local,dest={}", cache.display());
    build(&boxyard, &folder, &["--detach", "--cache-to", &to]).fails(1, "--detach leaves nobody who could");
    assert!(!cache.exists(), "nothing is made for a build that is refused");
    let own = folder.join("Dockerfile").display().to_string();
    let remote = "https://127.0.0.1:1/context.tar";
    let refused = boxyard.boxyard(&["build", "--detach", "-f", &own, remote]);
    refused.fails(1, &format!("--detach leaves nobody who could send the Dockerfile {own}"));
    // One from stdin is sent with the context.
    let line = format!(
        "{} build --detach -f - {} <<< $'FROM busybox\\nRUN echo from std\"\"in'",
        kit::program().display(),
        folder.display()
    );
    let mut shell = boxyard_client("bash", boxyard.socket());
    let id = kit::run_command(&mut shell, &["-c", &line], None).ok().to_owned();
    wait_until("the build's log", 60, || {
        boxyard.boxyard(&["build", "logs", &id]).stdout.contains("from stdin").then_some(())
    });
    boxyard.stop();
}
