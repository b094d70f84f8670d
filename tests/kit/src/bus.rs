//! A user of the bus who speaks NATS' own protocol: what a worker might say that is none of ours.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::Boxyard;

/// A call is answered, or shows that it goes on, within so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection under one user's credentials.
pub struct BusUser {
    user: String,
    stream: BufReader<TcpStream>,
    calls: u32,
}

/// What a call failed with: the word of its kind (`denied`), and its message.
pub type Refusal = (String, String);

impl BusUser {
    /// As this user of a Boxyard, with the password that the Boxyard has made for it.
    pub fn connect(boxyard: &Boxyard, user: &str) -> Self {
        let secret = boxyard.data_dir().join("secrets").join(user);
        let password = std::fs::read_to_string(secret).expect("a user of this Boxyard");
        let port = boxyard.kept()["nats_port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut bus = Self { user: user.to_owned(), stream: BufReader::new(stream), calls: 0 };
        let options = json!({
            "user": user, "pass": password.trim(), "verbose": false, "pedantic": false, "headers": true,
            "no_responders": true, "protocol": 1, "lang": "tests", "version": "0"
        });
        bus.say(&format!("CONNECT {options}\r\nSUB _INBOX.{user}.> 1\r\n"), b"");
        bus.settle();
        bus
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// Publishes bytes; returns when the server has taken them.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.say(&format!("PUB {subject} {}\r\n", payload.len()), &[payload, b"\r\n"].concat());
        self.settle();
    }

    /// Makes a call of the product's (`rpc.gateway.NAME`), and waits for its answer.
    pub fn call(&mut self, call: &str, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.calls += 1;
        let (subject, inbox) = (format!("{call}.{}", self.user), format!("_INBOX.{}.{}", self.user, self.calls));
        let head = format!("PUB {subject} {inbox} {}\r\n", request.len());
        self.say(&head, &[request, b"\r\n"].concat());
        loop {
            let line = self.line();
            let words: Vec<&str> = line.split(' ').collect();
            if line.starts_with("-ERR") {
                return Err(("denied".to_owned(), line));
            }
            if words[0] != "HMSG" {
                continue;
            }
            let (head, payload) = self.message(&words);
            let header = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(": "));
                lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
            };
            // One that an earlier call has left is not meant.
            if words[1] != inbox {
                continue;
            }
            match header("Boxyard-Frame").as_deref() {
                Some("ok") => return Ok(payload),
                Some("error") => {
                    let kind = header("Boxyard-Error-Kind").unwrap_or_default();
                    return Err((kind, String::from_utf8_lossy(&payload).into_owned()));
                }
                Some(_) => {}
                None => return Err(("absent".to_owned(), head)),
            }
        }
    }

    /// The header and the payload of `HMSG subject sid [reply] header-bytes all-bytes`.
    fn message(&mut self, words: &[&str]) -> (String, Vec<u8>) {
        let number = |word: &str| word.parse::<usize>().expect("a number");
        let (head, all) = (number(words[words.len() - 2]), number(words[words.len() - 1]));
        let mut bytes = vec![0; all + 2];
        self.stream.read_exact(&mut bytes).expect("a message");
        bytes.truncate(all);
        let payload = bytes.split_off(head);
        (String::from_utf8_lossy(&bytes).replace('\r', ""), payload)
    }

    /// Waits until the server has seen all that was said.
    fn settle(&mut self) {
        self.say("PING\r\n", b"");
        loop {
            let line = self.line();
            assert!(!line.starts_with("-ERR"), "{}: {line}", self.user);
            if line == "PONG" {
                return;
            }
        }
    }

    fn say(&mut self, head: &str, body: &[u8]) {
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("sent");
    }

    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("the bus answers");
            let line = line.trim_end().to_owned();
            if line == "PING" {
                self.say("PONG\r\n", b"");
                continue;
            }
            return line;
        }
    }
}

/// Protobuf's wire format, as far as a call's fields need it: those of a message, one after the other.
#[derive(Default)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// A number.
    #[must_use]
    pub fn number(mut self, tag: u8, number: u8) -> Self {
        assert!(tag < 16 && number < 128, "one byte each");
        self.0.extend([tag << 3, number]);
        self
    }

    /// A text, or another message.
    #[must_use]
    pub fn bytes(mut self, tag: u8, bytes: &[u8]) -> Self {
        let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 128).expect("a short text");
        assert!(tag < 16, "one byte");
        self.0.extend([tag << 3 | 2, length]);
        self.0.extend(bytes);
        self
    }

    pub fn end(self) -> Vec<u8> {
        self.0
    }
}
