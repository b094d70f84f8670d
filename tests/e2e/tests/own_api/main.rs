//! `/boxyard/v1`: what its document promises is what it answers; events resume; Prometheus reads its figures; pages of
//! other sites are kept out.

mod schema;
mod stream;

use kit::{Boxyard, Client};
use serde_json::Value;
use stream::Stream;

/// Containers in several states, a build that worked and one that failed.
fn fill(boxyard: &Boxyard) {
    boxyard.docker(&["create", "--name", "made", "--label", "colour=red", "busybox", "true"]).ok();
    boxyard.docker(&["run", "--name", "ended", "busybox", "sh", "-c", "exit 3"]).fails(3, "");
    boxyard.docker(&["run", "-d", "--name", "up", "--stop-signal", "KILL", "busybox", "sleep", "600"]).ok();
    boxyard.feed(&["build", "-t", "built", "-"], b"FROM busybox\nLABEL a=b\nRUN echo x > /x\n").ok();
    boxyard
        .feed(&["build", "--force-rm", "-t", "broken", "-"], b"FROM busybox\nRUN exit 7\n")
        .fails(7, "non-zero code: 7");
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item[key].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn every_path_answers_as_the_document_says() {
    let (boxyard, port) = Boxyard::start_on_port();
    fill(&boxyard);
    let document = Client::tcp(port).get_json("/boxyard/v1/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    let build = names(&Client::tcp(port).get_json("/boxyard/v1/builds"), "id").remove(0);
    let worker = names(&Client::tcp(port).get_json("/boxyard/v1/workers"), "id").remove(0);
    let image = names(&Client::tcp(port).get_json("/boxyard/v1/images"), "id").remove(0);
    let path = "/boxyard/v1/caches?id=own";
    let imported = Client::tcp(port).send("POST", path, "application/x-tar", vec![0; 1024]).expect("an answer");
    assert_eq!(imported.status, 200, "{}", imported.text());
    let paths = document["paths"].as_object().expect("paths");
    for wanted in ["services", "nodes", "workers", "builds", "transfers", "images", "containers", "events", "metrics"] {
        assert!(paths.contains_key(&format!("/boxyard/v1/{wanted}")), "{wanted} is described");
    }
    for (path, operations) in paths {
        for operation in operations.as_object().expect("operations").values() {
            for refusal in operation["responses"].as_object().expect("responses").values() {
                if let Some(reference) = refusal.get("$ref") {
                    schema::resolve(&document, reference);
                }
            }
        }
        let Some(operation) = operations.get("get") else { continue };
        let content = operation["responses"]["200"]["content"].as_object().expect("content");
        let (kind, content) = content.iter().next().expect("one content type");
        if kind == "text/event-stream" {
            let stream = Stream::open(port, "", None);
            boxyard.docker(&["tag", "busybox", "other:tag"]).ok();
            let sent = stream.wait_for("the tag's event", |sent| sent.name.is_empty());
            schema::check(&document, &content["schema"], &sent.data, path);
            continue;
        }
        let asked = path
            .replace("{id}", &build)
            .replace("{worker}", &worker)
            .replace("{cache}", "own")
            .replace("{digest}", &image);
        let answer = Client::tcp(port).send("GET", &asked, "", "").expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.header("content-type").is_some_and(|given| given.starts_with(kind.as_str())), "{path}");
        if kind == "application/json" {
            schema::check(&document, &content["schema"], &answer.json(), path);
        }
        assert_eq!(Client::tcp(port).send("HEAD", &asked, "", "").expect("an answer").status, 200, "{path}");
    }
    boxyard.stop();
}

#[test]
fn lists_say_what_is_there() {
    let (boxyard, port) = Boxyard::start_on_port();
    fill(&boxyard);
    let containers = Client::tcp(port).get_json("/boxyard/v1/containers");
    assert_eq!(names(&containers, "name"), ["up", "ended", "made"], "newest first");
    assert_eq!(names(&containers, "state"), ["running", "exited", "created"]);
    let [up, ended, made] = [0, 1, 2].map(|at| &containers["items"][at]);
    assert_eq!((&ended["exit_code"], &up["exit_code"], &made["started_at"]), (&3.into(), &Value::Null, &Value::Null));
    assert_eq!((&made["labels"]["colour"], &up["image"]), (&"red".into(), &"busybox".into()));

    let first = Client::tcp(port).get_json("/boxyard/v1/containers?limit=2");
    assert_eq!((names(&first, "name"), &first["total"]), (vec!["up".to_owned(), "ended".to_owned()], &3.into()));
    let after = first["next"].as_str().expect("there is more");
    let second = Client::tcp(port).get_json(&format!("/boxyard/v1/containers?limit=2&after={after}"));
    assert_eq!((names(&second, "name"), &second["next"]), (vec!["made".to_owned()], &Value::Null));

    let builds = Client::tcp(port).get_json("/boxyard/v1/builds");
    assert_eq!(names(&builds, "state"), ["failed", "done"]);
    let [failed, done] = [0, 1].map(|at| &builds["items"][at]);
    assert_eq!(
        (&failed["error_code"], &failed["attempt"], &done["tags"][0]),
        (&7.into(), &1.into(), &"built:latest".into())
    );
    assert!(failed["error"].as_str().is_some_and(|why| why.contains("returned a non-zero code: 7")), "{failed}");
    assert_eq!(
        *done,
        Client::tcp(port).get_json(&format!("/boxyard/v1/builds/{}", done["id"].as_str().expect("an id")))
    );
    let page = Client::tcp(port).get_json("/boxyard/v1/builds?limit=1");
    let page = Client::tcp(port)
        .get_json(&format!("/boxyard/v1/builds?limit=1&after={}", page["next"].as_str().expect("there is more")));
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&done["id"], &Value::Null));

    let images = Client::tcp(port).get_json("/boxyard/v1/images");
    let built = &images["items"][0];
    assert_eq!(
        (&built["tags"][0], &built["id"], &built["labels"]["a"]),
        (&"built:latest".into(), &done["image_id"], &"b".into())
    );
    let all = Client::tcp(port).get_json("/boxyard/v1/images?all=1");
    assert!(all["total"].as_u64() > images["total"].as_u64(), "steps are listed with all: {all}");

    // The layer store gave its first sign of life before there was a place for it.
    let kinds = kit::wait_until("a sign of life of every service", 30, || {
        let kinds = names(&Client::tcp(port).get_json("/boxyard/v1/services"), "kind");
        (kinds.len() >= 5).then_some(kinds)
    });
    assert_eq!(kinds, ["build-worker", "gateway", "layer-store", "node", "registry-sync"]);
    let node = &Client::tcp(port).get_json("/boxyard/v1/nodes")["items"][0];
    assert_eq!((&node["containers"]["running"], &node["containers"]["exited"]), (&1.into(), &1.into()));
    assert_eq!(Client::tcp(port).get_json("/boxyard/v1/workers")["items"][0]["id"], done["worker_id"]);
    let summary = Client::tcp(port).get_json("/boxyard/v1/summary");
    assert_eq!((&summary["builds"]["failed"], &summary["containers"]["running"]), (&1.into(), &1.into()));

    // A service that is killed is shown as gone until its next start has given a sign of life.
    let pid = |list: &Value| {
        let items = list["items"].as_array().expect("items").iter();
        items
            .filter(|item| item["kind"] == "registry-sync" && item["alive"] == true)
            .find_map(|item| item["pid"].as_u64())
    };
    let before = pid(&Client::tcp(port).get_json("/boxyard/v1/services"));
    boxyard.kill_service("boxyard-registry-sync");
    kit::wait_until("the next registry-sync", 60, || {
        let now = pid(&Client::tcp(port).get_json("/boxyard/v1/services"));
        (now.is_some() && now != before).then_some(())
    });
    boxyard.stop();
}

#[test]
fn events_go_on_where_they_broke_off() {
    let (boxyard, port) = Boxyard::start_on_port();
    let stream = Stream::open(port, "", None);
    let hello = stream.sent().remove(0);
    assert_eq!((hello.name.as_str(), &hello.data["resumed"]), ("hello", &false.into()));
    boxyard.docker(&["create", "--name", "one", "busybox"]).ok();
    boxyard.feed(&["build", "-"], b"FROM busybox\nLABEL a=b\n").ok();
    stream.wait_for("the build's end", |sent| sent.data["type"] == "build" && sent.data["action"] == "done");
    let created = stream.wait_for("the container", |sent| sent.data["action"] == "create");
    assert_eq!(created.data["attributes"]["name"], "one");
    let seen: Vec<_> = stream.sent().into_iter().filter(|sent| sent.name.is_empty()).collect();
    drop(stream);

    // What is missed meanwhile is sent later, in order and once.
    boxyard.docker(&["rm", "one"]).ok();
    let again = Stream::open(port, "", Some(&created.id));
    assert_eq!(again.sent()[0].data["resumed"], true);
    again.wait_for("the removal", |sent| sent.data["action"] == "destroy");
    let later: Vec<_> = again.sent().into_iter().filter(|sent| sent.name.is_empty()).collect();
    let place = seen.iter().position(|sent| *sent == created).expect("it was seen");
    assert!(later.starts_with(&seen[place + 1..]), "{later:?}");

    let some = Stream::open(port, "?since=1&type=build&event=queued&event=done", None);
    some.wait_for("the build's end", |sent| sent.data["action"] == "done");
    let actions: Vec<_> = some.sent().into_iter().skip(1).map(|sent| sent.data["action"].clone()).collect();
    assert_eq!(actions, ["queued", "done"]);

    // An id of another start of the gateway means nothing.
    let strange = Stream::open(port, "", Some("00000000-1"));
    assert_eq!(strange.sent()[0].data["resumed"], false);
    // Docker's own stream does not show what Docker does not have.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let path = format!("/events?since=1&until={}.{:09}", now.as_secs(), now.subsec_nanos());
    let docker = Client::tcp(port).send("GET", &path, "", "").expect("an answer").text();
    assert!(docker.contains("\"Action\":\"create\"") && !docker.contains("\"Type\":\"build\""), "{docker}");
    boxyard.stop();
}

#[test]
fn prometheus_reads_the_figures() {
    let (boxyard, port) = Boxyard::start_on_port();
    fill(&boxyard);
    kit::wait_until("figures of all services", 30, || {
        let text = Client::tcp(port).send("GET", "/boxyard/v1/metrics", "", "").expect("an answer").text();
        let services = text.lines().filter(|line| line.starts_with("process_resident_memory_bytes{")).count();
        let bus = text.contains("boxyard_bus_served_seconds_count{service=\"node\"");
        (services == 5 && bus).then_some(())
    });
    let python = kit::cache_dir().join("python/bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/own_api/metrics.py");
    let url = format!("http://127.0.0.1:{port}/boxyard/v1/metrics");
    let run = kit::run_command(&mut std::process::Command::new(python), &["-B", script, &url], None);
    assert_eq!(run.code, 0, "{run}");
    boxyard.stop();
}

#[test]
fn refusals_are_clear_and_pages_of_other_sites_are_kept_out() {
    let (boxyard, port) = Boxyard::start_on_port();
    boxyard.docker(&["run", "-d", "--name", "up", "--stop-signal", "KILL", "busybox", "sleep", "600"]).ok();
    let own = format!("127.0.0.1:{port}");
    let origin = format!("http://{own}");
    for (method, path, headers, status) in [
        ("GET", "/boxyard/v1/nothing", &[][..], 404),
        ("GET", "/boxyard/v2", &[], 404),
        ("GET", "/boxyard/v1/builds/nosuch", &[], 404),
        ("GET", "/boxyard/v1/containers?limit=0", &[], 400),
        ("GET", "/boxyard/v1/images?limit=1001", &[], 400),
        ("GET", "/boxyard/v1/builds?after=x", &[], 400),
        ("GET", "/boxyard/v1/events?since=x", &[], 400),
        ("POST", "/boxyard/v1/containers", &[], 405),
        ("DELETE", "/boxyard/v1/images", &[], 405),
        ("DELETE", "/boxyard/v1/builds/nosuch", &[], 404),
        ("POST", "/boxyard/v1/builds/nosuch/cancel", &[], 404),
        ("DELETE", "/boxyard/v1/builds/nosuch", &[("Origin", "http://evil.example")], 403),
        ("GET", "/", &[], 404),
        ("GET", "/", &[("Accept", "text/html")], 307),
        ("GET", "/boxyard/v1/summary", &[("Origin", "http://evil.example")], 403),
        ("GET", "/boxyard/v1/summary", &[("Origin", "null")], 403),
        ("GET", "/boxyard/v1/summary", &[("Host", "evil.example")], 403),
        ("GET", "/boxyard/v1/summary", &[("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")], 403),
        ("POST", "/containers/up/kill", &[("Origin", "http://evil.example")], 403),
        ("POST", "/v1.41/containers/up/kill", &[("Host", "evil.example"), ("Origin", "http://evil.example")], 403),
        ("GET", "/boxyard/v1/summary", &[("Host", own.as_str()), ("Origin", origin.as_str())], 200),
        ("GET", "/containers/up/json", &[("Host", "localhost:1")], 200),
    ] {
        let answer = Client::tcp(port).send_with(method, path, headers, "").expect("an answer");
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.text());
        if status >= 400 {
            assert!(!answer.message().is_empty(), "{method} {path} says why");
        }
    }
    let state = boxyard.docker(&["inspect", "-f", "{{.State.Status}}", "up"]).ok().to_owned();
    assert_eq!(state, "running", "no page has killed it");
    // The docker command over TCP sends none of these.
    let mut docker = kit::client(boxyard.socket());
    docker.env("DOCKER_HOST", format!("tcp://localhost:{port}"));
    kit::run_command(&mut docker, &["ps", "-q"], None).ok();
    boxyard.stop();
}
