//! What a stolen worker's credentials may not do: command a node, listen to others, delete streams, write blobs.
//! The bus is spoken to in NATS' own text protocol, so that no client library stands between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use kit::{Boxyard, Client, Options, client, wait_until};

struct Bus {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Bus {
    /// Logs in; the server's answer to a first PING is PONG, or the reason of its refusal.
    fn connect(port: u16, user: &str, password: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the bus listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
        let lines = BufReader::new(stream.try_clone().expect("share the socket"));
        let mut bus = Self { stream, lines };
        assert!(bus.line().starts_with("INFO "), "it is a NATS server");
        let login = serde_json::json!({"verbose": false, "user": user, "pass": password, "name": "test"});
        match bus.ask(&format!("CONNECT {login}")) {
            refusal if refusal.starts_with("-ERR") => Err(refusal),
            _ => Ok(bus),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the bus answers in time");
        line.trim_end().to_owned()
    }

    /// Sends a command and a PING: what comes before PONG is the answer to the command, empty for silence.
    fn ask(&mut self, command: &str) -> String {
        self.stream.write_all(format!("{command}\r\nPING\r\n").as_bytes()).expect("the bus reads");
        let mut answer = String::new();
        loop {
            let line = self.line();
            match line.as_str() {
                "PONG" => return answer,
                "PING" => self.stream.write_all(b"PONG\r\n").expect("the bus reads"),
                _ if line.starts_with("-ERR") => {
                    answer = line;
                    if answer.contains("Authorization") {
                        return answer;
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn worker_credentials_reach_no_further() {
    let boxyard = Boxyard::start(Options { workers: 2, ..Options::default() });
    let kept = boxyard.kept();
    let instance = boxyard.instance().expect("it has an id");
    let port = u16::try_from(kept["nats_port"].as_u64().expect("a port")).expect("a port");
    let user = format!("worker-{instance}-1");
    let secret = std::fs::read_to_string(boxyard.data_dir().join("secrets").join(&user)).expect("its password");

    assert!(Bus::connect(port, &user, "wrong").is_err(), "a wrong password is refused");
    assert!(Bus::connect(port, "", "").is_err(), "nobody is refused");
    let mut bus = Bus::connect(port, &user, secret.trim()).unwrap_or_else(|refusal| panic!("its own login: {refusal}"));
    let denied = [
        format!("PUB rpc.node.{instance}.start 0\r\n"),
        format!("PUB rpc.node.{instance}.anything 0\r\n"),
        format!("PUB event.node.{instance} 0\r\n"),
        "PUB event.gateway 0\r\n".to_owned(),
        format!("PUB rpc.gateway-at.0123456789abcdef.BuildCredentials.{user} 0\r\n"),
        format!("PUB rpc.node.{instance}.ContainerStart.{user} 0\r\n"),
        format!("PUB rpc.node.{instance}.ContainerStart.gateway 0\r\n"),
        // It claims to be a node, the other worker, the gateway.
        format!("PUB rpc.gateway.NodeHello.{user} 0\r\n"),
        format!("PUB rpc.gateway.NodeHello.node-{instance} 0\r\n"),
        format!("PUB rpc.gateway.BuildNext.worker-{instance}-2 0\r\n"),
        format!("PUB rpc.store.BlobsRelease.{user} 0\r\n"),
        "PUB rpc.store.LeaseEnd.gateway 0\r\n".to_owned(),
        format!("PUB rpc.worker.{instance}-2.anything 0\r\n"),
        format!("PUB rpc.worker.{instance}-2.BuildCancel.{user} 0\r\n"),
        format!("PUB rpc.sync.SyncPull.{user} 0\r\n"),
        "PUB _INBOX.gateway.x 0\r\n".to_owned(),
        format!("PUB $KV.alive.node.{instance} 0\r\n"),
        "PUB buildlog.build 0\r\n".to_owned(),
        "PUB buildlog.build.gateway 0\r\n".to_owned(),
        format!("PUB buildlog.build.worker-{instance}-2 0\r\n"),
        "PUB $JS.API.STREAM.DELETE.EVENTS 0\r\n".to_owned(),
        "PUB $JS.API.STREAM.PURGE.EVENTS 0\r\n".to_owned(),
        "SUB > 1".to_owned(),
        "SUB _INBOX.> 2".to_owned(),
        "SUB _INBOX.gateway.> 3".to_owned(),
        format!("SUB _INBOX.node-{instance}.> 4"),
        format!("SUB rpc.node.{instance}.*.* 5"),
        "SUB rpc.gateway.*.* 6".to_owned(),
        "SUB rpc.gateway-at.*.*.* 9".to_owned(),
        format!("SUB rpc.worker.{instance}-2.*.* 7"),
    ];
    for command in &denied {
        let answer = bus.ask(command);
        assert!(answer.contains("Permissions Violation"), "{command:?} was allowed: {answer:?}");
    }
    // What it needs is still allowed: silence means yes.
    assert_eq!(bus.ask(&format!("SUB rpc.worker.{instance}-1.*.* 8")), "");
    assert_eq!(bus.ask(&format!("PUB rpc.gateway.BuildRenew.{user} 0\r\n")), "");
    let log = std::fs::read_to_string(boxyard.data_dir().join("logs/nats.log")).expect("the server's log");
    for subject in [format!("rpc.gateway.NodeHello.{user}"), format!("event.node.{instance}")] {
        let is_told =
            |line: &str| line.contains("Publish Violation") && line.contains(&user) && line.contains(&subject);
        assert!(log.lines().any(is_told), "{subject} is not in the log:\n{log}");
    }
    boxyard.stop();
}

/// A worker may write into any build's log under its own name, and nobody sees it where the build is another's.
#[test]
fn a_worker_is_heard_in_its_own_builds_only() {
    let boxyard = Boxyard::start(Options { workers: 2, ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let port = u16::try_from(boxyard.kept()["nats_port"].as_u64().expect("a port")).expect("a port");
    let gate = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let step = format!("FROM busybox\nRUN nc 127.0.0.1 {} && echo through\n", gate.local_addr().expect("bound").port());
    std::fs::write(boxyard.work_dir().join("Dockerfile"), step).expect("write the Dockerfile");
    let build = client(boxyard.socket())
        .args(["build", "--network", "host"])
        .arg(boxyard.work_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker starts");
    let (waiting, _) = gate.accept().expect("the step begins");

    let running = Client::new(boxyard.socket()).get_json("/boxyard/v1/builds")["items"][0].clone();
    let (id, holder) = (running["id"].as_str().expect("an id"), running["worker_id"].as_str().expect("a worker"));
    let instance = boxyard.instance().expect("it has an id");
    let names = [1, 2].map(|number| format!("{instance}-{number}"));
    let other = names.iter().find(|name| *name != holder).expect("another worker");
    let user = format!("worker-{other}");
    let secret = std::fs::read_to_string(boxyard.data_dir().join("secrets").join(&user)).expect("its password");
    let mut bus = Bus::connect(port, &user, secret.trim()).unwrap_or_else(|refusal| panic!("its own login: {refusal}"));
    // A BuildLog of attempt 1 with a stream of text.
    let forged = "\x08\x01\x1a\x07forged\n";
    let write = |bus: &mut Bus, name: &str| bus.ask(&format!("PUB buildlog.{id}.{name} {}\r\n{forged}", forged.len()));
    assert!(write(&mut bus, &format!("worker-{holder}")).contains("Permissions Violation"), "it spoke as {holder}");
    assert_eq!(write(&mut bus, &user), "");
    wait_until("the gateway to pass over what is forged", 60, || {
        let log = std::fs::read_to_string(boxyard.data_dir().join("logs/gateway.log")).unwrap_or_default();
        log.lines().any(|line| line.contains("this is not its build") && line.contains(&user)).then_some(())
    });
    drop(waiting);
    let output = build.wait_with_output().expect("docker ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("through") && !text.contains("forged"), "{output:?}");
    boxyard.stop();
}

#[test]
fn blobs_are_not_written_without_the_token() {
    let boxyard = Boxyard::start(Options::default());
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let port = u16::try_from(boxyard.kept()["store_port"].as_u64().expect("a port")).expect("a port");
    let digest = format!("sha256:{}", kit::sha256(b"x"));
    let token = std::fs::read_to_string(boxyard.data_dir().join("secrets/store-token")).expect("the token");
    let half = &token.trim()[..token.trim().len() / 2];
    for authorization in
        [String::new(), "Authorization: Bearer wrong\r\n".to_owned(), format!("Authorization: Bearer {half}\r\n")]
    {
        for (method, path) in [
            ("POST", "/v2/boxyard/blobs/uploads/".to_owned()),
            ("POST", format!("/v2/boxyard/blobs/uploads/?digest={digest}")),
            ("PUT", "/v2/boxyard/manifests/x".to_owned()),
            ("DELETE", format!("/v2/boxyard/blobs/{digest}")),
        ] {
            let status = http_status(port, method, &path, &authorization);
            assert!([401, 403, 405].contains(&status), "{method} {path} with {authorization:?}: {status}");
        }
    }
    boxyard.docker(&["run", "--rm", "busybox", "true"]).ok();
    boxyard.stop();
}

/// A worker's token writes blobs of the store's own repository: not what users push, no manifest, no removal.
#[test]
fn a_workers_token_reaches_blobs_only() {
    let boxyard = Boxyard::start(Options::default());
    let port = u16::try_from(boxyard.kept()["store_port"].as_u64().expect("a port")).expect("a port");
    let instance = boxyard.instance().expect("it has an id");
    let digest = format!("sha256:{}", kit::sha256(b"x"));
    let file = boxyard.data_dir().join(format!("secrets/token-worker-{instance}-1"));
    let authorization =
        format!("Authorization: Bearer {}\r\n", std::fs::read_to_string(file).expect("its token").trim());
    for (method, path, allowed) in [
        ("POST", format!("/v2/boxyard.internal/blobs/uploads/?digest={digest}"), true),
        ("GET", format!("/v2/boxyard.internal/blobs/{digest}"), true),
        ("DELETE", format!("/v2/boxyard.internal/blobs/{digest}"), false),
        ("PUT", "/v2/boxyard.internal/manifests/x".to_owned(), false),
        ("PUT", "/v2/library/x/manifests/latest".to_owned(), false),
        ("POST", format!("/v2/library/x/blobs/uploads/?digest={digest}"), false),
        ("POST", "/v2/library/x/blobs/uploads/".to_owned(), false),
    ] {
        let status = http_status(port, method, &path, &authorization);
        assert_eq!(allowed, status < 300, "{method} {path}: {status}");
        assert!(allowed || [401, 403].contains(&status), "{method} {path}: {status}");
    }
    let log = std::fs::read_to_string(boxyard.data_dir().join("logs/layer-store.log")).expect("the store's log");
    assert!(log.contains("a limited token was denied"), "{log}");
    boxyard.stop();
}

fn http_status(port: u16, method: &str, path: &str, authorization: &str) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the layer store listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: store\r\n{authorization}Content-Length: 1\r\nConnection: close\r\n\r\nx"
    );
    stream.write_all(request.as_bytes()).expect("the layer store reads");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no HTTP: {answer}"))
}
