//! What the Engine API brought after the version of the dockerd that CI compares with: 1.46 to 1.51, each answer as
//! dockerd 28.5 gave it. And health checks and bound volumes across the end of a node.

use kit::{Engine, Kind, wait_until};

const ARM: &str = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22arm64%22%7D";
const AMD: &str = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D";

/// The image is for amd64: asked for another platform it is not there, and nothing happens to it.
fn platforms_of_an_image(engine: &Engine) {
    let mismatch =
        "busybox was found but its platform (linux/amd64) does not match the specified platform (linux/arm64)";
    for (method, path, status, words) in [
        ("GET", format!("/v1.51/images/busybox/json?platform={ARM}"), 404, mismatch),
        ("GET", format!("/v1.51/images/busybox/json?platform={ARM}&manifests=1"), 400, "cannot both be set"),
        ("GET", "/v1.51/images/busybox/json?platform=linux".to_owned(), 400, "failed to parse platform"),
        ("GET", format!("/v1.51/images/busybox/history?platform={ARM}"), 404, mismatch),
        ("GET", format!("/v1.51/images/busybox/get?platform={ARM}"), 404, "no suitable export target found"),
        (
            "POST",
            format!("/v1.51/images/busybox/push?tag=latest&platform={ARM}"),
            404,
            "does not match the specified platform",
        ),
        ("DELETE", format!("/v1.51/images/busybox?platforms={ARM}"), 404, mismatch),
        ("DELETE", format!("/v1.51/images/busybox?platforms={ARM}&platforms={AMD}"), 400, "multiple platforms"),
        ("DELETE", "/v1.51/images/busybox?platforms=%7B%7D".to_owned(), 400, "both OS and Architecture"),
    ] {
        let answer = engine.api(method, &path, "");
        let said = answer.message();
        assert!(answer.status == status && said.contains(words), "{method} {path}: {} {said}", answer.status);
    }
    for path in ["json", "history", "get"] {
        assert_eq!(
            engine.api("GET", &format!("/v1.51/images/busybox/{path}?platform={AMD}"), "").status,
            200,
            "{path}"
        );
    }
    assert_eq!(engine.api("DELETE", &format!("/v1.51/images/busybox?platforms={AMD}"), "").status, 200);
    let load = |platform: &str| {
        let path = format!("/v1.51/images/load?platform={platform}");
        let client = kit::Client::new(engine.socket());
        client.send("POST", &path, "application/x-tar", kit::busybox()).expect("an answer").text()
    };
    assert!(!load(ARM).contains("Loaded image"));
    assert_eq!(engine.docker(&["images", "-q"]).ok(), "");
    assert!(load(AMD).contains("Loaded image: busybox:latest"));
}

fn shapes(engine: &Engine) {
    let get = |path: &str| engine.api("GET", path, "").json();
    let config = |version: &str| get(&format!("/{version}/images/busybox/json"))["Config"].clone();
    assert_eq!(config("v1.49")["Hostname"], "", "as a container's");
    assert!(config("v1.50").get("Hostname").is_none() && config("v1.50")["Cmd"][0] == "sh", "as the OCI's");
    engine.docker(&["create", "--name", "user", "busybox"]).ok();
    assert_eq!(get("/v1.51/images/json")[0]["Containers"], 1);
    assert_eq!(get("/v1.50/images/json")[0]["Containers"], -1);
    assert_eq!(get("/v1.51/images/json?shared-size=1")[0]["SharedSize"], 0);
    let usage = get("/v1.51/system/df?type=container");
    assert!(usage["Containers"].as_array().is_some_and(|list| list.len() == 1) && usage["Images"].is_null(), "{usage}");
    assert_eq!(
        engine.api("HEAD", "/_ping", "").header("builder-version"),
        Some("2"),
        "BuildKit is the one to build with"
    );
    for (method, path, status) in [
        ("GET", "/v1.51/containers/user/nosuch", 404),
        ("GET", "/v1.51/build", 404),
        ("POST", "/v1.51/networks/create", 501),
        ("GET", "/v1.51/containers/user/attach/ws", 501),
        ("POST", "/v1.51/build/prune?reserved-space=x", 400),
        ("POST", "/v1.51/build/prune?min-free-space=1&max-used-space=1", 200),
        ("GET", "/v2.0/version", 400),
    ] {
        assert_eq!(engine.api(method, path, "").status, status, "{method} {path}");
    }
}

/// The looks go on when the node is killed and comes back, and a volume with options leads to its folder.
fn health_and_volumes_outlive_the_node(engine: &Engine) {
    let file = engine.write("bound/file", "outside");
    let folder = file.parent().expect("it lies in a folder");
    let device = format!("device={}", folder.display());
    let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
    engine.docker(&[&["volume", "create"], &options[..], &["bound"]].concat()).ok();
    engine
        .docker(&["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "no"])
        .fails(1, "not built yet");
    engine.docker(&["volume", "create", "--opt", "bogus=1", "no"]).fails(1, "invalid option: \"bogus\"");
    let run = ["run", "-d", "--name", "looked", "-v", "bound:/in", "--health-cmd", "test -e /in/well"];
    let often = ["--health-interval", "200ms", "--health-retries", "1", "busybox", "sleep", "300"];
    engine.docker(&[&run[..], &often[..]].concat()).ok();
    let health = |wanted: &str| {
        wait_until(&format!("the container to be {wanted}"), 60, || {
            let said = engine.docker(&["inspect", "-f", "{{.State.Health.Status}}", "looked"]);
            (said.stdout.trim() == wanted).then_some(())
        });
    };
    health("unhealthy");
    engine.docker(&["exec", "looked", "cat", "/in/file"]).says("outside");
    assert_eq!(engine.boxyard().kill_service("boxyard-node"), 1);
    // By the folder itself: whoever looks from now on is the new node.
    engine.write("bound/well", "");
    health("healthy");
    std::fs::remove_file(folder.join("well")).expect("the container made none");
    health("unhealthy");
    engine.docker(&["rm", "-f", "looked"]).ok();
    engine.docker(&["volume", "rm", "bound"]).ok();
    // Read-only by its options: for the container, and for who copies into one that does not run.
    engine.docker(&["volume", "create", "--opt", "type=none", "--opt", "o=bind,ro", "--opt", &device, "sealed"]).ok();
    let run = ["run", "--name", "sealed", "-v", "sealed:/in", "busybox", "touch", "/in/file"];
    engine.docker(&run).fails(1, "Read-only file system");
    engine.write("file", "copied");
    engine.shell("docker cp file sealed:/in/").fails(1, "ead-only file system");
    engine.docker(&["rm", "sealed"]).ok();
    engine.docker(&["volume", "rm", "sealed"]).ok();
    assert_eq!(std::fs::read_to_string(&file).expect("it is the machine's"), "outside");
}

/// A look that its node left behind is ended by the next node, and told as nobody's exec.
fn a_hung_look_ends_with_its_node(engine: &Engine) {
    let sleep = format!("sleep {}", 20_000_000 + std::process::id());
    let check = format!("exec {sleep}");
    let run = ["run", "-d", "--name", "hung", "--health-interval", "200ms", "--health-timeout", "1h"];
    engine.docker(&[&run[..], &["--health-cmd", &check, "busybox", "sleep", "300"]].concat()).ok();
    let looks = || engine.shell(&format!("pgrep -fx '{sleep}'")).stdout;
    let first = wait_until("the first look", 60, || Some(looks()).filter(|pids| !pids.is_empty()));
    assert_eq!(engine.boxyard().kill_service("boxyard-node"), 1);
    // The new node's own look hangs too.
    wait_until("one look, of the new node", 60, || {
        let pids = looks();
        (pids.lines().count() == 1 && pids != first).then_some(())
    });
    engine.docker(&["rm", "-f", "hung"]).ok();
    let events = "docker events --since 1h --until 0s --filter container=hung --format '{{.Action}}'";
    let told = wait_until("the removal to be told", 30, || {
        Some(engine.shell(events)).filter(|told| told.stdout.contains("destroy"))
    });
    assert!(!told.stdout.contains("exec"), "{told}");
}

#[test]
fn hung_health_checks_are_ended() {
    kit::run(Kind::Boxyard, a_hung_look_ends_with_its_node);
}

#[test]
fn platforms_are_asked_for() {
    kit::run(Kind::Boxyard, platforms_of_an_image);
}

#[test]
fn answers_have_the_newest_shapes() {
    kit::run(Kind::Boxyard, shapes);
}

#[test]
fn health_checks_go_on() {
    kit::run(Kind::Boxyard, health_and_volumes_outlive_the_node);
}
