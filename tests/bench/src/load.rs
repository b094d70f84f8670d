//! Eight clients that keep their connections and ask an HTTP server again and again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use kit::sha256;

const CLIENTS: usize = 8;

/// Gets a path from a port of loopback `count` times, by 8 clients.
pub fn load(port: u16, count: usize, path: &str) {
    by_clients(port, count, |connection, _| {
        assert_eq!(connection.ask("GET", path, b"").status, 200, "{path}");
    });
}

/// Pushes `count` blobs of these bytes by 8 clients, each with `stamp` and its own number at its begin, as clients do:
/// a session, all bytes with the digest.
pub fn push(port: u16, count: usize, stamp: u64, bytes: &[u8]) {
    by_clients(port, count, |connection, number| {
        let mut blob = bytes.to_vec();
        blob[..8].copy_from_slice(&stamp.to_le_bytes());
        blob[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        let begun = connection.ask("POST", "/v2/pushed/blobs/uploads/", b"");
        assert_eq!(begun.status, 202, "a session begins");
        // Relative or with the host before it.
        let at = begun.location.find("/v2/").expect("an address");
        let (path, digest) = (&begun.location[at..], sha256(&blob));
        let sign = if path.contains('?') { '&' } else { '?' };
        let put = connection.ask("PUT", &format!("{path}{sign}digest=sha256%3A{digest}"), &blob);
        assert_eq!(put.status, 201, "{path}");
    });
}

fn by_clients(port: u16, count: usize, work: impl Fn(&mut Connection, usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut connection = Connection::open(port);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(&mut connection, number);
                }
            });
        }
    });
}

struct Answer {
    status: u16,
    location: String,
}

struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the registry listens");
        stream.set_nodelay(true).expect("set the connection up");
        Self { stream: BufReader::with_capacity(256 << 10, stream) }
    }

    /// Sends one request and reads its whole answer.
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        let stream = &mut self.stream;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\
             accept: application/vnd.oci.image.manifest.v1+json, */*\r\n\
             content-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.get_mut().write_all(head.as_bytes()).expect("send the request");
        stream.get_mut().write_all(body).expect("send the body");
        let mut first = String::new();
        stream.read_line(&mut first).expect("a status line");
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let mut answer = Answer { status, location: String::new() };
        let mut left: usize = 0;
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).expect("a header");
            if header.trim().is_empty() {
                break;
            }
            let Some((name, value)) = header.split_once(':') else { continue };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => left = value.trim().parse().expect("a length"),
                "location" => value.trim().clone_into(&mut answer.location),
                _ => {}
            }
        }
        let mut buffer = vec![0; 256 << 10];
        while left > 0 {
            let wanted = left.min(buffer.len());
            let read = stream.read(&mut buffer[..wanted]).expect("the body");
            assert!(read > 0, "{path}: the body broke off");
            left -= read;
        }
        answer
    }
}
