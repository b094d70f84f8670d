//! Boxyard's registry beside docker-registry as servers: manifests and blobs for 8 clients at once.

use kit::{Boxyard, Client, Options, Output, Registry, run_command, sha256};

use crate::load::{load, push};
use crate::pair::{Goal, Report};
use crate::transfers::{middle, timed};

const MANIFESTS: usize = 2000;
const BLOBS: usize = 400;
const PUSHES: usize = 100;

pub fn measure(report: &mut Report) {
    let (manifest, blob) = ("registry: 2000 manifest GETs", "registry: 400 GETs of 1 MB");
    let pushes = "registry: 100 pushes of 1 MB";
    if ![manifest, blob, pushes].into_iter().any(|row| report.wants(row)) {
        return;
    }
    let theirs = Registry::start();
    let flags = vec!["--registry=127.0.0.1:0".to_owned(), "--no-node".to_owned()];
    let ours = Boxyard::start(Options { workers: 0, flags, ..Options::default() });
    let ports = [theirs.port(), ours.registry_port()];
    let digests = ports.map(fill);
    let rows = [
        (manifest, MANIFESTS, ["/v2/app/manifests/v1".to_owned(), "/v2/app/manifests/v1".to_owned()]),
        (blob, BLOBS, digests.map(|digest| format!("/v2/app/blobs/{digest}"))),
    ];
    for (name, count, paths) in rows {
        if !report.wants(name) {
            continue;
        }
        let mut taken = [Vec::new(), Vec::new()];
        for round in 0..6 {
            for side in 0..2 {
                let seconds = timed(|| load(ports[side], count, &paths[side]));
                // The first round warms caches and does not count.
                if round > 0 {
                    taken[side].push(seconds);
                }
            }
        }
        report.row_beside("docker-registry", name, taken.map(middle), "ms", Goal::Faster(2.0));
    }
    if report.wants(pushes) {
        let bytes = noise(1 << 20);
        let mut taken = [Vec::new(), Vec::new()];
        for round in 0..6 {
            for side in 0..2 {
                let seconds = timed(|| push(ports[side], PUSHES, round, &bytes));
                if round > 0 {
                    taken[side].push(seconds);
                }
            }
        }
        report.row_beside("docker-registry", pushes, taken.map(middle), "ms", Goal::Faster(1.0));
    }
    ours.stop();
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(bytes / 8)
    .flatten()
    .collect()
}

/// Pushes an image of one layer of 1 MB with skopeo; the layer's digest.
fn fill(port: u16) -> String {
    let folder = tempfile::TempDir::new().expect("a folder");
    let bytes = noise(1 << 20);
    let (layer, config) = (format!("sha256:{}", sha256(&bytes)), format!("sha256:{}", sha256(b"{}")));
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": kind,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": bytes.len()}],
    });
    let hex = |digest: &str| digest["sha256:".len()..].to_owned();
    std::fs::write(folder.path().join("version"), "Directory Transport Version: 1.1\n").expect("write");
    std::fs::write(folder.path().join("manifest.json"), manifest.to_string()).expect("write");
    std::fs::write(folder.path().join(hex(&layer)), &bytes).expect("write");
    std::fs::write(folder.path().join(hex(&config)), "{}").expect("write");
    let (from, to) = (format!("dir:{}", folder.path().display()), format!("docker://127.0.0.1:{port}/app:v1"));
    let pushed: Output = run_command(
        &mut std::process::Command::new("skopeo"),
        &["copy", "-q", "--preserve-digests", "--dest-tls-verify=false", &from, &to],
        None,
    );
    pushed.ok();
    let answer = Client::tcp(port).send_with("GET", "/v2/app/manifests/v1", &[("accept", kind)], "");
    assert_eq!(answer.expect("the registry answers").json(), manifest);
    layer
}
