//! A full disk while loading, building or taking a push: a clear error, what was there works, and space freed makes it
//! work again without a restart. The data folder lies on a small file system of its own.

use std::process::Command;

use kit::{Answer, Boxyard, Client, LoopDisk, Options, run_command, wait_until};
use tempfile::TempDir;

#[test]
fn load_and_build_on_a_full_disk() {
    let disk = LoopDisk::new(1024);
    let boxyard = Boxyard::start(Options { data_dir: Some(disk.path().join("data")), ..Options::default() });
    boxyard.expect_error("space");
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let build = boxyard.feed(&["build", "-"], b"FROM busybox\nRUN head -c 1500000000 /dev/urandom > /big\n");
    assert_ne!(build.code, 0, "1.5 GB do not fit\n{build}");
    assert!(build.stderr.contains("space") || build.stdout.contains("space"), "the error names the disk\n{build}");
    let mut archive = kit::Archive::new();
    archive.file("big", 0o644, &noise(1_200_000_000));
    let imported = boxyard.feed(&["import", "-", "big:1"], &archive.finish());
    assert_ne!(imported.code, 0, "1.2 GB do not fit\n{imported}");
    assert!(
        imported.stderr.contains("space") || imported.stdout.contains("space"),
        "the error names the disk\n{imported}"
    );
    boxyard.docker(&["images"]).says("busybox").hides("big");
    boxyard.docker(&["run", "--rm", "busybox", "echo", "old"]).says("old");

    let filler = disk.path().join("filler");
    fill(&filler);
    let full = boxyard.feed(&["build", "-"], b"FROM busybox\nRUN head -c 50000000 /dev/urandom > /b\n");
    assert_ne!(full.code, 0, "the disk is full\n{full}");
    boxyard.docker(&["images"]).says("busybox");
    std::fs::remove_file(&filler).expect("free the space");
    boxyard.feed(&["build", "-t", "fits", "-"], b"FROM busybox\nRUN head -c 50000000 /dev/urandom > /b\n").ok();
    boxyard.docker(&["run", "--rm", "fits", "ls", "-l", "/b"]).says("50000000");
    boxyard.stop();
}

/// Free bytes that the layer store leaves alone.
const FLOOR_BYTES: u64 = 128 << 20;

/// A push that does not fit is refused in the registry's own words and leaves nothing; what is there can be pulled, and
/// with room again all goes on without a restart.
#[test]
fn pushes_to_the_registry_on_a_full_disk() {
    let disk = LoopDisk::new(512);
    let data = disk.path().join("data");
    let flags = vec!["--registry=127.0.0.1:0".to_owned()];
    let boxyard = Boxyard::start(Options { data_dir: Some(data.clone()), flags, ..Options::default() });
    let (port, folder) = (boxyard.registry_port(), TempDir::new().expect("a folder"));
    let registry = Client::tcp(port);
    let send = |method: &str, path: &str, body: &[u8]| {
        registry.send(method, path, "", body.to_vec()).expect("the registry answers")
    };
    let refused = |answer: Answer| {
        assert_eq!(answer.status, 507, "{}", answer.text());
        assert_eq!(answer.json()["errors"][0]["message"], "no space left on device", "{}", answer.text());
    };
    let begin = || send("POST", "/v2/app/blobs/uploads/", b"");
    let archive = folder.path().join("busybox.tar");
    std::fs::write(&archive, kit::busybox()).expect("write the archive");
    let (archive, image) =
        (format!("docker-archive:{}", archive.display()), format!("docker://127.0.0.1:{port}/app:v1"));
    let copy = |to: &str| {
        run_command(&mut Command::new("skopeo"), &["copy", "-q", "--dest-tls-verify=false", &archive, to], None)
    };
    copy(&image).ok();
    let before = send("GET", "/v2/app/manifests/v1", b"");

    // A few megabytes fit, a blob does not: neither as one body nor in chunks.
    disk.leave(FLOOR_BYTES + (8 << 20));
    let big = noise(16 << 20);
    let whole = format!("/v2/app/blobs/uploads/?digest=sha256:{}", kit::sha256(&big));
    refused(send("POST", &whole, &big));
    let session = begin().header("location").expect("a session").to_owned();
    refused(send("PATCH", &session, &big));
    assert_eq!(send("GET", &session, b"").status, 404, "the upload is over");
    let uploads = data.join("store/uploads");
    let left = || std::fs::read_dir(&uploads).expect("the folder of uploads").count();
    assert_eq!(left(), 0, "of refused uploads nothing stays");

    // Chunks that are refused late do not use up the places for uploads.
    disk.leave(FLOOR_BYTES + (512 << 10));
    for _ in 0..300 {
        match begin() {
            begun if begun.status == 202 => {
                refused(send("PATCH", begun.header("location").expect("one"), &big[..3 << 19]))
            }
            full => refused(full),
        }
    }

    // Nothing fits: a manifest is refused as well, and its tag and digest are not there; what was pushed is.
    disk.leave(FLOOR_BYTES - (4 << 20));
    refused(begin());
    let (annotated, text) = (before.text(), before.text());
    let annotated = annotated.replacen('{', "{\"annotations\":{\"again\":\"yes\"},", 1);
    let digest = format!("sha256:{}", kit::sha256(annotated.as_bytes()));
    refused(send("PUT", "/v2/app/manifests/v2", annotated.as_bytes()));
    for missing in ["v2", &digest] {
        assert_eq!(send("GET", &format!("/v2/app/manifests/{missing}"), b"").status, 404, "{missing}");
    }
    let stored = data.join("store/repositories/app/manifests").join(&digest["sha256:".len()..]);
    assert!(!stored.exists(), "the repository names a manifest that is not there");
    assert_eq!(registry.get_json("/v2/app/tags/list")["tags"], serde_json::json!(["v1"]));
    let back = format!("dir:{}", folder.path().join("back").display());
    run_command(&mut Command::new("skopeo"), &["copy", "-q", "--src-tls-verify=false", &image, &back], None).ok();
    assert_eq!(send("GET", "/v2/app/manifests/v1", b"").text(), text);

    disk.make_room();
    wait_until("the room to be there", 30, || (begin().status == 202).then_some(()));
    assert_eq!(send("POST", &whole, &big).status, 201);
    assert_eq!(send("PUT", "/v2/app/manifests/v2", annotated.as_bytes()).status, 201);
    copy(&format!("docker://127.0.0.1:{port}/other:v1")).ok();
    assert_eq!(registry.get_json("/v2/app/tags/list")["tags"], serde_json::json!(["v1", "v2"]));
    boxyard.stop();
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// Writes zeros until the file system has no room left.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("make the filler");
    let block = vec![0_u8; 1 << 20];
    while file.write_all(&block).is_ok() {}
    let _ = file.sync_all();
}
