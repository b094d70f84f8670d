//! Wrong names, tags, digests, filters and JSON get Docker's status and words, never 500, and leave nothing.

use kit::on_both;

struct Case {
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    /// Part of Docker's message, in any case of letters.
    message: &'static str,
}

const fn case(
    method: &'static str,
    path: &'static str,
    body: &'static str,
    status: u16,
    message: &'static str,
) -> Case {
    Case { method, path, body, status, message }
}

const CASES: &[Case] = &[
    case("GET", "/images/nosuch/json", "", 404, "no such image: nosuch"),
    case("GET", "/images/nosuch:tag/history", "", 404, "no such image: nosuch:tag"),
    case("GET", "/images/sha256:zz/json", "", 404, "no such image: sha256:zz"),
    case("GET", "/images/UPPER/json", "", 400, "must be lowercase"),
    case("DELETE", "/images/nosuch", "", 404, "no such image: nosuch"),
    case("POST", "/images/nosuch/tag?repo=a&tag=b", "", 404, "no such image: nosuch"),
    case("POST", "/images/busybox/tag?repo=UPPER&tag=b", "", 400, "invalid reference format"),
    case("POST", "/images/busybox/tag?repo=a&tag=-bad", "", 400, "invalid tag format"),
    case("GET", "/images/json?filters=notjson", "", 400, ""),
    case("GET", "/images/json?filters={\"nosuch\":[\"x\"]}", "", 400, "invalid filter"),
    case("GET", "/images/json?filters={\"before\":[\"nosuch\"]}", "", 404, "no such image"),
    case("POST", "/images/prune?filters={\"nosuch\":[\"x\"]}", "", 400, "invalid filter"),
    case("GET", "/images/get?names=nosuch", "", 404, "nosuch"),
    case("GET", "/containers/nosuch/json", "", 404, "no such container: nosuch"),
    case("GET", "/containers/json?filters={\"nosuch\":[\"x\"]}", "", 400, "invalid filter"),
    case("GET", "/containers/json?filters={\"status\":[\"bogus\"]}", "", 400, "bogus"),
    case("GET", "/containers/json?limit=abc", "", 400, ""),
    case("POST", "/containers/create", "{\"Image\":\"nosuch\"}", 404, "no such image: nosuch"),
    case("POST", "/containers/create", "{\"Image\":\"busybox\"", 400, ""),
    case("POST", "/containers/create", "{\"Image\":5}", 400, ""),
    case("POST", "/containers/create", "", 400, ""),
    case("POST", "/containers/create?name=-x", "{\"Image\":\"busybox\"}", 400, "invalid container name (-x)"),
    case("POST", "/containers/create", "{\"Image\":\"BAD:::\"}", 400, "invalid reference format"),
    case(
        "POST",
        "/containers/create",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"Memory\":1}}",
        400,
        "minimum memory limit",
    ),
    case(
        "POST",
        "/containers/create",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"Binds\":[\"a:b:c:d\"]}}",
        400,
        "invalid",
    ),
    case(
        "POST",
        "/containers/create",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"Binds\":[\"/x:relative\"]}}",
        400,
        "invalid mount path",
    ),
    case(
        "POST",
        "/containers/create",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"CapAdd\":[\"NOSUCH\"]}}",
        400,
        "unknown capability",
    ),
    case(
        "POST",
        "/containers/create",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"RestartPolicy\":{\"Name\":\"bogus\"}}}",
        400,
        "invalid restart policy",
    ),
    case("POST", "/containers/create", "{\"Image\":\"busybox\",\"WorkingDir\":\"relative\"}", 400, "working directory"),
    case("POST", "/containers/nosuch/start", "", 404, "no such container: nosuch"),
    case("POST", "/containers/nosuch/stop", "", 404, "no such container: nosuch"),
    case("POST", "/containers/nosuch/kill", "", 404, "no such container: nosuch"),
    case("POST", "/containers/nosuch/wait", "", 404, "no such container: nosuch"),
    case("DELETE", "/containers/nosuch", "", 404, "no such container: nosuch"),
    case("GET", "/containers/nosuch/logs?stdout=1", "", 404, "no such container: nosuch"),
    case("GET", "/containers/idle/logs", "", 400, "you must choose at least one stream"),
    case("POST", "/containers/idle/kill", "", 409, "is not running"),
    case("POST", "/containers/idle/kill?signal=BOGUS", "", 400, "invalid signal"),
    case("POST", "/containers/idle/exec", "{\"Cmd\":[\"true\"]}", 409, "is not running"),
    case("POST", "/containers/idle/rename?name=", "", 400, "empty"),
    case("POST", "/containers/idle/rename?name=idle2", "", 409, "already in use"),
    case("GET", "/containers/idle/archive", "", 400, ""),
    case("GET", "/containers/idle/archive?path=/nosuch", "", 404, "nosuch"),
    case("GET", "/containers/idle/top", "", 409, "is not running"),
    case("POST", "/exec/nosuch/start", "{}", 404, "no such exec instance: nosuch"),
    case("GET", "/exec/nosuch/json", "", 404, "no such exec instance: nosuch"),
    case("POST", "/commit?container=nosuch", "", 404, "no such container: nosuch"),
    case("POST", "/commit?container=idle&repo=UPPER", "", 400, "invalid reference format"),
    case("POST", "/build?t=BAD", "", 400, "invalid reference format"),
    case("POST", "/images/create?fromImage=busybox:-bad", "", 400, ""),
    case("GET", "/v1.99/version", "", 400, "client version 1.99 is too new"),
    case("GET", "/v1.2/version", "", 400, "client version 1.2 is too old"),
    case("GET", "/nosuchpath", "", 404, "page not found"),
];

on_both! {
    fn wrong_requests(engine: &Engine) {
        engine.docker(&["create", "--name", "idle", "busybox"]).ok();
        engine.docker(&["create", "--name", "idle2", "busybox"]).ok();
        let before = (engine.docker(&["ps", "-aq"]).stdout, engine.docker(&["images", "-aq"]).stdout);
        let mut wrong = Vec::new();
        for case in CASES {
            let path = case.path.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
            let answer = engine.api(case.method, &path, case.body);
            let text = answer.text();
            let same_words = text.to_lowercase().contains(case.message);
            let old_docker = !engine.is_boxyard() && (OLD_500.contains(&case.path) || OLD_500.contains(&case.body));
            let same_status = answer.status == case.status || (old_docker && answer.status == 500);
            let is_json = answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
            if !same_status || (!same_words && engine.is_boxyard()) || !(is_json || old_docker) {
                wrong.push(format!("{} {} {}: {} {}", case.method, case.path, case.body, answer.status, text.trim()));
            }
        }
        assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
        let after = (engine.docker(&["ps", "-aq"]).stdout, engine.docker(&["images", "-aq"]).stdout);
        assert_eq!(before.0, after.0, "wrong requests leave no container");
        if engine.is_boxyard() {
            assert_eq!(before.1, after.1, "wrong requests leave no image"); // dockerd 20.10 commits before it looks.
        }
    }
}

/// Paths or bodies to which dockerd 20.10 still answers 500 (or plain text), and the Docker of today 400.
const OLD_500: &[&str] = &[
    "/images/busybox/tag?repo=UPPER&tag=b",
    "/images/busybox/tag?repo=a&tag=-bad",
    "/images/json?filters=notjson",
    "/containers/json?limit=abc",
    "{\"Image\":\"busybox\"",
    "{\"Image\":5}",
    "{\"Image\":\"busybox\",\"HostConfig\":{\"Binds\":[\"a:b:c:d\"]}}",
    "{\"Image\":\"busybox\",\"HostConfig\":{\"Binds\":[\"/x:relative\"]}}",
    "/containers/create",
    "/commit?container=idle&repo=UPPER",
    "/build?t=BAD",
    "/v1.2/version",
];
