//! Eight clients that keep their connections and ask an HTTP server for the same thing again and again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

const CLIENTS: usize = 8;

/// One request: its line, its body, and the status that must come.
pub struct Ask {
    pub line: String,
    pub body: Vec<u8>,
    pub status: u16,
}

/// Sends `count` requests to a port of loopback by 8 clients; `ask` makes the one of each number.
pub fn load(port: u16, count: usize, ask: impl Fn(usize) -> Ask + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let stream = TcpStream::connect(("127.0.0.1", port)).expect("the registry listens");
                stream.set_nodelay(true).expect("set the connection up");
                let mut stream = BufReader::with_capacity(256 << 10, stream);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let Ask { line, body, status } = ask(number);
                    assert_eq!(exchange(&mut stream, &line, &body), status, "{line}");
                }
            });
        }
    });
}

/// Sends one request and reads its whole answer; the status.
fn exchange(stream: &mut BufReader<TcpStream>, line: &str, body: &[u8]) -> u16 {
    let accept = "application/vnd.oci.image.manifest.v1+json, */*";
    let head = format!(
        "{line} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {accept}\r\n\
         content-type: application/vnd.oci.image.manifest.v1+json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let socket = stream.get_mut();
    socket.write_all(head.as_bytes()).expect("send the head");
    socket.write_all(body).expect("send the body");
    let mut first = String::new();
    stream.read_line(&mut first).expect("a status line");
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).expect("a header");
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut left = length;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let wanted = left.min(buffer.len());
        let read = stream.read(&mut buffer[..wanted]).expect("the body");
        assert!(read > 0, "{line}: the body broke off");
        left -= read;
    }
    status
}
