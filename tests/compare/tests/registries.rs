//! The commands that move images, on both engines at the same registry, which holds the same for both.

use compare::{Sides, registry_cases};
use kit::{Boxyard, Client, Options, REGISTRY_PASSWORD_BCRYPT, REGISTRY_USER, Registry};
use serde_json::json;

const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The seeder's images: two tags that share layers, the small one of the tutorial, and one for a list.
fn seed(seeder: &Boxyard, port: u16) {
    seeder.feed(&["load", "-q"], &kit::busybox()).ok();
    let host = format!("127.0.0.1:{port}");
    let app = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\nLABEL a=b\nCMD [\"cat\", \"/two\"]\n";
    let two = format!("{app}RUN echo three > /three\nCMD [\"cat\", \"/three\"]\n");
    let hello = "FROM busybox\nCMD [\"echo\", \"Hello from Docker!\"]\n";
    for (name, dockerfile) in [
        ("seed/app:latest", app),
        ("seed/app:two", &two),
        ("library/hello-world:latest", hello),
        ("seed/multi:amd64", hello),
    ] {
        let tag = format!("{host}/{name}");
        seeder.feed(&["build", "-q", "-t", &tag, "-"], dockerfile.as_bytes()).ok();
        seeder.docker(&["push", "-q", &tag]).ok();
    }
    let registry = Client::tcp(port);
    let accept = [("Accept", MANIFEST)];
    let manifest = registry.send_with("GET", "/v2/seed/multi/manifests/amd64", &accept, "").expect("a manifest");
    let digest = manifest.header("Docker-Content-Digest").expect("a digest").to_owned();
    let of = |architecture: &str| {
        json!({
            "mediaType": MANIFEST, "digest": digest, "size": manifest.body.len(),
            "platform": {"architecture": architecture, "os": "linux"}
        })
    };
    let list = json!({"schemaVersion": 2, "mediaType": LIST, "manifests": [of("amd64"), of("s390x")]}).to_string();
    let put = registry.send("PUT", "/v2/seed/multi/manifests/latest", LIST, list).expect("an answer");
    assert_eq!(put.status, 201, "{}", put.text());
}

fn hold(port: u16, with_login: u16) {
    let accept = [("Accept", MANIFEST)];
    let manifest = Client::tcp(port).send_with("HEAD", "/v2/seed/app/manifests/latest", &accept, "");
    let digest = manifest.expect("an answer").header("Docker-Content-Digest").expect("a digest").to_owned();
    let mut sides = Sides::start(&[&format!("--registry-mirror=http://127.0.0.1:{port}")]);
    sides.set("R", format!("127.0.0.1:{port}"));
    sides.set("L", format!("127.0.0.1:{with_login}"));
    sides.set("DIGEST", digest);
    sides.hold(&registry_cases());
}

/// A Boxyard that is a registry.
fn own_registry(more: &[String]) -> (Boxyard, u16) {
    let port = kit::free_port();
    let flags = [&[format!("--registry=127.0.0.1:{port}")], more].concat();
    (Boxyard::start(Options { flags, ..Options::default() }), port)
}

#[test]
fn at_docker_registry() {
    let (registry, with_login) = (Registry::start(), Registry::start_with_login());
    let seeder = Boxyard::start(Options::default());
    seed(&seeder, registry.port());
    seeder.stop();
    hold(registry.port(), with_login.port());
}

#[test]
fn at_boxyards_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users");
    std::fs::write(&users, format!("{REGISTRY_USER}:{REGISTRY_PASSWORD_BCRYPT}\n")).expect("write the users");
    let (seeder, port) = own_registry(&[]);
    let (closed, with_login) = own_registry(&[format!("--registry-htpasswd={}", users.display())]);
    seed(&seeder, port);
    hold(port, with_login);
    closed.stop();
    seeder.stop();
}
