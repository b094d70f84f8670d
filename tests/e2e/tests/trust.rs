//! With a worker's own credentials: node commands, others' inboxes and unauthorised blob writes are denied.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use kit::{Boxyard, Options};

/// A client of the bus in its plain text protocol, so that nothing of ours stands between the test and the server.
struct Wire {
    reader: BufReader<TcpStream>,
}

impl Wire {
    fn connect(boxyard: &Boxyard, user: &str, password: &str) -> Self {
        let kept: serde_json::Value = read_json(boxyard, "boxyard.json");
        let port = kept["nats_port"].as_u64().expect("a port") as u16;
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("NATS listens");
        let mut wire = Self { reader: BufReader::new(stream) };
        assert!(wire.line().starts_with("INFO "));
        let hello =
            serde_json::json!({"verbose": false, "user": user, "pass": password, "lang": "test", "version": "0"});
        wire.send(&format!("CONNECT {hello}\r\n"));
        wire
    }

    fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).expect("the server reads");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the server answers");
        line.trim_end().to_owned()
    }

    /// What the server says of one operation: its error, or PONG for none.
    fn verdict(&mut self, operation: &str) -> String {
        self.send(operation);
        self.send("PING\r\n");
        let answer = self.line();
        if answer != "PONG" {
            while self.line() != "PONG" {}
        }
        answer
    }
}

fn read_json(boxyard: &Boxyard, name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(boxyard.data_dir().join(name)).expect("the supervisor keeps it");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_worker_can_do_a_workers_things_only() {
    let boxyard = Boxyard::start(Options::default());
    let instance = read_json(&boxyard, "boxyard.json")["instance"].as_str().expect("an id").to_owned();
    let worker = format!("worker-{instance}-1");
    let secret = std::fs::read_to_string(boxyard.data_dir().join("secrets").join(&worker)).expect("its password");

    let mut wire = Wire::connect(&boxyard, &worker, "wrong");
    assert_eq!(wire.verdict(""), "-ERR 'Authorization Violation'");

    let mut wire = Wire::connect(&boxyard, &worker, secret.trim());
    assert_eq!(wire.verdict(&format!("SUB _INBOX.{worker}.test 1\r\n")), "PONG", "its own inbox");
    for denied in [
        format!("PUB rpc.node.{instance}.ContainerRemove 0\r\n\r\n"),
        format!("PUB event.node.{instance} 0\r\n\r\n"),
        "PUB rpc.sync.SyncLoad 0\r\n\r\n".to_owned(),
        "PUB $JS.API.STREAM.DELETE.EVENTS 0\r\n\r\n".to_owned(),
        format!("PUB $KV.alive.node.{instance} 0\r\n\r\n"),
        "PUB _INBOX.gateway.x 0\r\n\r\n".to_owned(),
    ] {
        let answer = wire.verdict(&denied);
        assert!(answer.starts_with("-ERR 'Permissions Violation for Publish to"), "{denied:?}: {answer}");
    }
    for denied in ["SUB _INBOX.gateway.> 2\r\n", "SUB rpc.gateway.* 3\r\n", "SUB > 4\r\n"] {
        let answer = wire.verdict(denied);
        assert!(answer.starts_with("-ERR 'Permissions Violation for Subscription to"), "{denied:?}: {answer}");
    }
    boxyard.stop();
}

#[test]
fn blobs_are_written_with_a_token_only() {
    let boxyard = Boxyard::start(Options::default());
    let port = read_json(&boxyard, "boxyard.json")["store_port"].as_u64().expect("a port") as u16;
    for (method, path) in [
        ("POST", "/v2/boxyard.internal/blobs/uploads/"),
        ("POST", "/internal/blobs"),
        ("PUT", "/v2/some/image/manifests/latest"),
    ] {
        for token in ["", "Authorization: Bearer wrong\r\n"] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the layer store listens");
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 2\r\nConnection: close\r\n\r\nhi"
            )
            .expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("it answers");
            assert!(answer.starts_with("HTTP/1.1 401 "), "{method} {path} {token:?}: {answer}");
        }
    }
    boxyard.stop();
}
