//! Eight clients that keep their connections and ask an HTTP server for the same thing again and again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

const CLIENTS: usize = 8;

/// Gets a path from a port of loopback `count` times, by 8 clients.
pub fn load(port: u16, count: usize, path: &str) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let stream = TcpStream::connect(("127.0.0.1", port)).expect("the registry listens");
                stream.set_nodelay(true).expect("set the connection up");
                let mut stream = BufReader::with_capacity(256 << 10, stream);
                loop {
                    if next.fetch_add(1, Ordering::Relaxed) >= count {
                        return;
                    }
                    assert_eq!(get(&mut stream, path), 200, "{path}");
                }
            });
        }
    });
}

/// Sends one request and reads its whole answer; the status.
fn get(stream: &mut BufReader<TcpStream>, path: &str) -> u16 {
    let accept = "application/vnd.oci.image.manifest.v1+json, */*";
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {accept}\r\n\
         content-type: application/vnd.oci.image.manifest.v1+json\r\ncontent-length: 0\r\n\r\n"
    );
    stream.get_mut().write_all(head.as_bytes()).expect("send the request");
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
        assert!(read > 0, "{path}: the body broke off");
        left -= read;
    }
    status
}
