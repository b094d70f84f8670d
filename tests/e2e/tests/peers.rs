//! Boxyard's own registry with other people's programs: docker, skopeo, podman, oras, and docker-registry as the one
//! that images are copied from and to.

use std::path::Path;
use std::process::Command;

use kit::{Boxyard, Client, Engine, Kind, Options, Output, Registry, run_command};
use serde_json::Value;
use tempfile::TempDir;

/// `secret`, as htpasswd -B writes it.
const USER: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn start(flags: &[&str]) -> (Boxyard, u16) {
    let mut all = vec!["--registry=127.0.0.1:0".to_owned()];
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let boxyard = Boxyard::start(Options { flags: all, ..Options::default() });
    let port = boxyard.registry_port();
    (boxyard, port)
}

fn program(name: &str, args: &[&str]) -> Output {
    run_command(&mut Command::new(name), args, None)
}

/// The busybox image as an archive in a folder.
fn archive(folder: &Path) -> String {
    let file = folder.join("busybox.tar");
    std::fs::write(&file, kit::busybox()).expect("write the archive");
    format!("docker-archive:{}", file.display())
}

#[test]
fn docker_pushes_and_pulls() {
    let (mut boxyard, port) = start(&[]);
    let docker = Engine::start(Kind::Dockerd);
    docker.load_busybox();
    let name = format!("127.0.0.1:{port}/team/busybox:v1");
    docker.docker(&["tag", "busybox", &name]).ok();
    let pushed = docker.docker(&["push", &name]);
    pushed.says("v1: digest: sha256:").says("Pushed");
    docker.docker(&["push", &name]).says("Layer already exists");
    let second = format!("127.0.0.1:{port}/other/busybox");
    docker.docker(&["tag", "busybox", &second]).ok();
    docker.docker(&["push", &second]).says("Mounted from team/busybox");
    assert_eq!(
        Client::tcp(port).get_json("/v2/_catalog"),
        serde_json::json!({"repositories": ["other/busybox", "team/busybox"]})
    );
    assert_eq!(
        Client::tcp(port).get_json("/v2/team/busybox/tags/list"),
        serde_json::json!({"name": "team/busybox", "tags": ["v1"]})
    );
    let digest =
        pushed.stdout.split_whitespace().find(|word| word.starts_with("sha256:")).expect("a digest").to_owned();
    let inspected = docker.docker(&["manifest", "inspect", "--insecure", "-v", &name]);
    inspected.says(&format!("\"digest\": \"{digest}\""));

    // A restart keeps what was pushed, and the port.
    boxyard.down();
    boxyard.up();
    assert_eq!(boxyard.registry_port(), port);
    docker.docker(&["rmi", "busybox", &name, &second]).ok();
    docker.docker(&["pull", &name]).says(&format!("Digest: {digest}"));
    assert_eq!(docker.docker(&["run", "--rm", "--network", "none", &name, "echo", "hello"]).ok(), "hello");
    docker.docker(&["rmi", &name]).ok();
    let by_digest = format!("127.0.0.1:{port}/team/busybox@{digest}");
    docker.docker(&["pull", &by_digest]).says("Downloaded newer image");
    docker.docker(&["pull", &format!("127.0.0.1:{port}/team/none")]).fails(1, "not found: manifest unknown");
    docker.stop();
    boxyard.stop();
}

#[test]
fn skopeo_copies_in_out_and_across() {
    let (boxyard, port) = start(&[]);
    let folder = TempDir::new().expect("a folder");
    let own = |name: &str| format!("docker://127.0.0.1:{port}/{name}");
    let skopeo = |args: &[&str]| program("skopeo", args);
    let copy = |from: &str, to: &str| {
        skopeo(&["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", from, to]).ok();
    };
    copy(&archive(folder.path()), &own("app:v1"));
    let oci = format!("oci:{}:v1", folder.path().join("layout").display());
    copy(&own("app:v1"), &oci);
    copy(&oci, &own("app:oci"));
    let tags = skopeo(&["list-tags", "--tls-verify=false", &own("app")]);
    let listed: Value = serde_json::from_str(tags.ok()).expect("JSON");
    assert_eq!(listed["Tags"], serde_json::json!(["oci", "v1"]));

    // An index of two, to docker-registry and back, byte by byte.
    let image = Client::tcp(port).send("GET", "/v2/app/manifests/oci", "", "").expect("the registry answers");
    let kind = image.header("content-type").expect("a media type").to_owned();
    let digest = image.header("docker-content-digest").expect("a digest").to_owned();
    let child = |architecture: &str| {
        serde_json::json!({"mediaType": kind, "digest": digest, "size": image.body.len(),
                           "platform": {"os": "linux", "architecture": architecture}})
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type,
                                   "manifests": [child("amd64"), child("arm64")]});
    let put = Client::tcp(port).send("PUT", "/v2/app/manifests/multi", media_type, index.to_string());
    assert_eq!(put.expect("the registry answers").status, 201);
    let peer = Registry::start();
    let theirs = format!("docker://{}/copied:multi", peer.host());
    copy(&own("app:multi"), &theirs);
    copy(&theirs, &own("back:multi"));
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &own("back:multi")]);
    assert_eq!(raw.stdout, index.to_string());

    skopeo(&["delete", "--tls-verify=false", &own("back:multi")]).ok();
    skopeo(&["inspect", "--raw", "--tls-verify=false", &own("back:multi")]).fails(1, "manifest unknown");
    boxyard.stop();
}

#[test]
fn podman_pushes_and_pulls() {
    let (boxyard, port) = start(&[]);
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("busybox.tar");
    std::fs::write(&file, kit::busybox()).expect("write the archive");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--root", &at("root"), "--runroot", &at("run"), "--tmpdir", &at("tmp")]);
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        run_command(&mut command, args, None)
    };
    podman(&["load", "-i", &file.display().to_string()]).ok();
    let name = format!("127.0.0.1:{port}/pods/busybox:v1");
    podman(&["tag", "localhost/busybox:latest", &name]).ok();
    podman(&["push", "--tls-verify=false", &name]).ok();
    let id = podman(&["image", "inspect", "-f", "{{.Id}}", &name]).ok().to_owned();
    podman(&["rmi", "-f", &id]).ok();
    podman(&["pull", "-q", "--tls-verify=false", &name]).says(&id);
    podman(&["rmi", "-af"]).ok();
    boxyard.stop();
}

#[test]
fn oras_pushes_and_pulls_artifacts() {
    let (boxyard, port) = start(&[]);
    let folder = TempDir::new().expect("a folder");
    let script = format!(
        "import os, oras.client\n\
         os.chdir({folder:?})\n\
         open('notes.txt', 'w').write('what is in it')\n\
         client = oras.client.OrasClient(hostname='127.0.0.1:{port}', insecure=True)\n\
         target = '127.0.0.1:{port}/artifacts/notes:v1'\n\
         client.push(target=target, files=['notes.txt'], manifest_annotations={{'kind': 'notes'}})\n\
         os.mkdir('got')\n\
         client.pull(target=target, outdir='got')\n\
         assert open('got/notes.txt').read() == 'what is in it'\n\
         assert client.get_tags('127.0.0.1:{port}/artifacts/notes') == ['v1']\n\
         print('the same')\n",
        folder = folder.path()
    );
    let python = kit::cache_dir().join("python/bin/python");
    run_command(&mut Command::new(python), &["-W", "ignore", "-c", &script], None).says("the same");
    boxyard.stop();
}

#[test]
fn a_login_and_a_certificate_are_asked_for() {
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("users"), USER).expect("write the users");
    std::fs::create_dir(at("certs")).expect("make a folder");
    let subject = ["-subj", "/CN=boxyard", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
    let key = at("key.pem");
    let cert = at("certs/ca.crt");
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    program("openssl", &[&new[..], &["-keyout", &key, "-out", &cert], &subject].concat()).ok();
    let flags = [("htpasswd", at("users")), ("cert", cert), ("key", key)];
    let flags = flags.map(|(flag, file)| format!("--registry-{flag}={file}"));
    let (boxyard, port) = start(&flags.each_ref().map(String::as_str));

    let docker = Engine::start(Kind::Dockerd);
    docker.load_busybox();
    let host = format!("127.0.0.1:{port}");
    let name = format!("{host}/app");
    docker.docker(&["tag", "busybox", &name]).ok();
    docker.docker(&["push", &name]).fails(1, "no basic auth credentials");
    let login =
        |password: &str| docker.docker_fed(&["login", "-u", "me", "--password-stdin", &host], password.as_bytes());
    // On loopback dockerd tries http after https has refused, and tells of that.
    login("guess").fails(1, "failed with status: 400 Bad Request");
    login("secret").says("Login Succeeded");
    docker.docker(&["push", &name]).says("latest: digest: sha256:");
    docker.docker(&["logout", &host]).ok();
    docker.docker(&["pull", &name]).fails(1, "Error response from daemon");

    let inspect = |args: &[&str]| {
        let image = format!("docker://{name}");
        let all = [&["inspect", "--raw", "--creds", "me:secret"][..], args, &[&image]].concat();
        program("skopeo", &all)
    };
    inspect(&["--cert-dir", &at("certs")]).says("schemaVersion");
    inspect(&[]).fails(1, "certificate");
    let plain = Client::tcp(port).send("GET", "/v2/", "", "").expect("answers");
    assert_eq!((plain.status, plain.text().trim()), (400, "Client sent an HTTP request to an HTTPS server."));
    docker.stop();
    boxyard.stop();
}
