//! A full disk while loading or building: a clear error, what was there works, and space freed makes it work
//! again without a restart. The data folder lies on a file system of 1 GB of its own.

use kit::{Boxyard, LoopDisk, Options};

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
