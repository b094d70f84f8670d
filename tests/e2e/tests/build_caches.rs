//! Caches that builds leave to others, and take from others: between two Boxyards that share nothing but a registry, or a
//! folder of their client. Images of the client's layouts.

use std::fs;
use std::path::Path;

use e2e::session::{build, cached, skopeo, start};
use kit::Registry;
use serde_json::{Value, json};

const DOCKERFILE: &str = "FROM busybox AS made\nCOPY src /src/\nRUN cat /src/a > /made && echo x > /only-here && echo ma''de\n\
                          FROM busybox\nCOPY --from=made /made /\nRUN cat /made && echo re''ad\n";

#[test]
fn another_boxyard_finds_every_step_in_a_registry() {
    let registry = Registry::start();
    let (one, here) = start();
    let (other, there) = start();
    for folder in [&here, &there] {
        fs::write(folder.join("src/a"), "of the context\n").expect("a file");
        fs::write(folder.join("Dockerfile"), DOCKERFILE).expect("a Dockerfile");
    }
    let cache = |tag: &str| format!("type=registry,ref={}/cache:{tag}", registry.host());
    let missing = build(&one, &here, &["--cache-from", &cache("none")]);
    missing.ok();
    assert!(missing.stderr.contains("importing cache manifest from"), "{missing}");
    // Of a build that fails it is not the reason.
    let failing = here.with_file_name("failing");
    fs::create_dir(&failing).expect("a folder");
    fs::write(failing.join("Dockerfile"), "FROM busybox\nRUN exit 3\n").expect("a Dockerfile");
    let failed = build(&one, &failing, &["--cache-from", &cache("none")]);
    failed.fails(1, "exit code: 3");
    assert!(failed.stderr.contains("   2 | >>> RUN exit 3\n"), "{failed}");
    for (mode, steps) in [("min", 2), ("max", 4)] {
        let to = format!("{},mode={mode}", cache(mode));
        build(&one, &here, &["--cache-to", &to]).ok();
        let found = build(&other, &there, &["--cache-from", &cache(mode), "-o", "type=cacheonly"]);
        found.ok();
        assert_eq!(cached(&found).len(), steps, "{mode}: {found}");
        assert_eq!(found.stderr.contains(" made\n"), mode == "min", "{mode}: {found}");
        // What came from there is this Boxyard's only as far as it has built it itself.
        other.docker(&["builder", "prune", "-af"]).ok();
    }
    let name = format!("{}/app", registry.host());
    build(&one, &here, &["--cache-to", "type=inline", "--push", "-t", &name]).ok();
    let found = build(&other, &there, &["--cache-from", &name, "-t", "again"]);
    found.ok();
    assert_eq!(cached(&found).len(), 2, "{found}");
    assert_eq!(other.docker(&["run", "--rm", "again", "cat", "/made"]).ok(), "of the context");
    // Debian's docker takes it, too.
    other.docker(&["builder", "prune", "-af"]).ok();
    let mut docker = kit::session_client(other.socket());
    docker.args(["build", "--progress", "plain", "--cache-from", &name]).arg(&there);
    let found = docker.output().expect("docker");
    let log = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success() && log.matches(" CACHED\n").count() >= 2, "{log}");
    let refused = build(&one, &here, &["--cache-to", "type=s3,bucket=x"]);
    refused.fails(1, "unknown cache exporter: \"s3\"");
    one.stop();
    other.stop();
}

#[test]
fn another_boxyard_finds_every_step_in_a_folder_of_the_client() {
    let (one, here) = start();
    let (other, there) = start();
    for folder in [&here, &there] {
        fs::write(folder.join("src/a"), "of the context\n").expect("a file");
        fs::write(folder.join("Dockerfile"), DOCKERFILE).expect("a Dockerfile");
    }
    let kept = here.with_file_name("cache");
    let (to, from) = (format!("type=local,dest={}", kept.display()), format!("type=local,src={}", kept.display()));
    let missing = build(&one, &here, &["--cache-from", &from, "--cache-to", &to]);
    missing.ok();
    assert!(missing.stderr.contains("WARNING: local cache import at"), "{missing}");
    let blobs = || fs::read_dir(kept.join("blobs/sha256")).expect("a layout").count();
    let before = blobs();
    build(&one, &here, &["--cache-to", &format!("{to},mode=max,tag=whole,compression=zstd,force-compression=true")])
        .ok();
    // skopeo, too, sees a layout whose layers are packed as was asked for.
    let raw = skopeo(&["inspect", "--raw", &format!("oci:{}:whole", kept.display())]);
    let manifest: Value = serde_json::from_str(raw.ok()).expect("a manifest");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0", "{raw}");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd", "{raw}");
    let after = blobs();
    assert!(after > before);
    build(&one, &here, &["--cache-to", &format!("{to},mode=max,tag=whole,compression=zstd,force-compression=true")])
        .ok();
    assert_eq!(blobs(), after, "what is there is not written again");
    for (tag, steps) in [("latest", 2), ("whole", 4)] {
        let found = build(&other, &there, &["--cache-from", &format!("{from},tag={tag}"), "-t", "again"]);
        found.ok();
        assert_eq!(cached(&found).len(), steps, "{tag}: {found}");
        other.docker(&["builder", "prune", "-af"]).ok();
    }
    assert_eq!(other.docker(&["run", "--rm", "again", "cat", "/made"]).ok(), "of the context");
    let index: Value = serde_json::from_slice(&fs::read(kept.join("index.json")).expect("a layout")).expect("JSON");
    let digest = index["manifests"][1]["digest"].as_str().expect("a digest").to_owned();
    let found = build(&other, &there, &["--cache-from", &format!("{from},digest={digest}")]);
    assert_eq!(cached(&found).len(), 4, "{found}");
    // One whose blobs are others than their names say is not used, and the build goes on.
    other.docker(&["builder", "prune", "-af"]).ok();
    other.docker(&["rmi", "again"]).ok();
    for layer in manifest["layers"].as_array().expect("layers") {
        let name = layer["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
        fs::write(kept.join("blobs/sha256").join(name), "something else").expect("a blob");
    }
    let spoilt = build(&other, &there, &["--no-cache-filter", "none", "--cache-from", &format!("{from},tag=whole")]);
    spoilt.ok();
    assert!(spoilt.stderr.contains(" made\n"), "{spoilt}");
    build(&one, &here, &["--cache-to", "type=local"]).fails(1, "local cache exporter requires dest");
    build(&one, &here, &["--cache-from", "type=local"]).fails(1, "local cache importer requires src");
    build(&one, &here, &["--cache-to", &format!("{to},colour=red")]).fails(1, "unknown attribute \"colour\"");
    one.stop();
    other.stop();
}

/// Writes a document into a layout; its descriptor.
fn blob(layout: &Path, media_type: &str, content: &[u8]) -> Value {
    let digest = kit::sha256(content);
    fs::create_dir_all(layout.join("blobs/sha256")).expect("folders");
    fs::write(layout.join("blobs/sha256").join(&digest), content).expect("a blob");
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()})
}

#[test]
fn caches_of_another_builder_are_told_and_not_used() {
    let registry = Registry::start();
    let (boxyard, folder) = start();
    fs::write(folder.join("src/a"), "of the context\n").expect("a file");
    fs::write(folder.join("Dockerfile"), DOCKERFILE).expect("a Dockerfile");
    // As BuildKit writes one: an index of layers and a config.
    let layout = folder.with_file_name("buildkit");
    let layer = blob(&layout, "application/vnd.oci.image.layer.v1.tar+gzip", b"no layer at all");
    let config = json!({"layers": [{"blob": layer["digest"], "parent": -1}], "records": [{"digest": "sha256:1"}]});
    let config_type = "application/vnd.buildkit.cacheconfig.v0";
    let config = blob(&layout, config_type, config.to_string().as_bytes());
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": index_type, "manifests": [layer.clone(), config.clone()]});
    let mut index = blob(&layout, index_type, index.to_string().as_bytes());
    index["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]});
    let mut manifest = blob(&layout, manifest_type, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "manifest"});
    let top = json!({"schemaVersion": 2, "manifests": [index, manifest]});
    fs::write(layout.join("index.json"), top.to_string()).expect("an index");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
    for tag in ["latest", "manifest"] {
        let from = format!("type=local,src={},tag={tag}", layout.display());
        let built = build(&boxyard, &folder, &["--no-cache", "--cache-from", &from]);
        built.ok();
        let told = "ERROR: failed to configure local cache importer: local:";
        assert!(built.stderr.contains(told), "{built}");
        assert!(built.stderr.contains("it is the cache of another builder and is not used"), "{built}");
    }
    // An image with BuildKit's inline cache, and one without any.
    let name = format!("{}/app", registry.host());
    boxyard.docker(&["tag", "busybox", &name]).ok();
    boxyard.docker(&["push", "-q", &name]).ok();
    let plain = build(&boxyard, &folder, &["--no-cache", "--cache-from", &name]);
    plain.ok();
    assert!(!plain.stderr.contains("ERROR"), "{plain}");
    let dir = folder.with_file_name("inline").display().to_string();
    let (from, to) = (format!("docker://{name}"), format!("docker://{name}:inline"));
    skopeo(&["copy", "-q", "--src-tls-verify=false", &from, &format!("oci:{dir}:latest")]).ok();
    let layout = Path::new(&dir);
    let read = |digest: &Value| -> Value {
        let name = digest.as_str().expect("a digest").trim_start_matches("sha256:");
        serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(name)).expect("a blob")).expect("JSON")
    };
    let top: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).expect("an index")).expect("JSON");
    let mut manifest = read(&top["manifests"][0]["digest"]);
    let mut config = read(&manifest["config"]["digest"]);
    config["moby.buildkit.cache.v0"] = "W3siZGlnZXN0Ijoic2hhMjU2OjEifV0=".into();
    let config_type = manifest["config"]["mediaType"].as_str().expect("a type").to_owned();
    manifest["config"] = blob(layout, &config_type, config.to_string().as_bytes());
    let manifest = blob(layout, manifest_type, manifest.to_string().as_bytes());
    fs::write(layout.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .expect("written");
    skopeo(&["copy", "-q", "--dest-tls-verify=false", &format!("oci:{dir}"), &to]).ok();
    let inline = build(&boxyard, &folder, &["--no-cache", "--cache-from", &format!("{name}:inline")]);
    inline.ok();
    assert!(inline.stderr.contains("it is the cache of another builder and is not used"), "{inline}");
    boxyard.stop();
}

#[test]
fn images_of_the_clients_layouts() {
    let (boxyard, folder) = start();
    fs::write(folder.join("src/a"), "of the layout\n").expect("a file");
    fs::write(folder.join("Dockerfile"), "FROM busybox\nCOPY src/a /from-layout\nENV WORD=kept\n").expect("written");
    let layout = folder.with_file_name("layout");
    let out = format!("type=oci,dest={},tar=false,name=base:v1", layout.display());
    build(&boxyard, &folder, &["--no-cache", "-o", &out]).ok();
    let (other, there) = start();
    let dockerfile = "FROM base AS one\nRUN cat /from-layout && echo $WO''RD\n\
                      FROM busybox\nCOPY --from=base /from-layout /copied\nCOPY --from=one /from-layout /again\n";
    fs::write(there.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).expect("a layout")).expect("JSON");
    let entry = &index["manifests"][0];
    let (digest, tag) =
        (entry["digest"].as_str().expect("a digest"), &entry["annotations"]["org.opencontainers.image.ref.name"]);
    let tag = tag.as_str().expect("a tag");
    for place in [format!(":{tag}"), format!("@{digest}"), format!(":{tag}@{digest}")] {
        let context = format!("base=oci-layout://{}{place}", layout.display());
        let built = build(&other, &there, &["--build-context", &context, "-t", "stands"]);
        built.ok();
        let log = &built.stderr;
        assert!(log.contains("[context base] OCI load from client") && log.contains("FROM base"), "{built}");
        assert_eq!(
            other.docker(&["run", "--rm", "stands", "cat", "/copied", "/again"]).ok(),
            "of the layout\nof the layout"
        );
    }
    let refused = |place: &str, why: &str| {
        let context = format!("base=oci-layout://{}{place}", layout.display());
        build(&other, &there, &["--build-context", &context]).fails(1, why);
    };
    refused(":nosuch", "no image has the tag \"nosuch\"");
    refused("/nowhere", "no such file or directory");
    refused(&format!("@sha256:{}", "0".repeat(64)), "base: failed to load from client: content sha256:0000");
    // What is there under a wrong name is not taken.
    let manifest = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    fs::write(&manifest, "{}").expect("spoilt");
    let (third, _) = start();
    let context = format!("base=oci-layout://{}:{tag}", layout.display());
    build(&third, &there, &["--build-context", &context]).fails(1, "the client has other bytes than those of");
    for boxyard in [boxyard, other, third] {
        boxyard.stop();
    }
}
