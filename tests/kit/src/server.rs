//! A server that does what a test tells it, down to the bytes: real sockets, no library that would mend its faults.

use std::io::{Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Client;

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// `"GET /v2/"`, without the query.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path.split('?').next().unwrap_or_default())
    }
}

pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    sends: Sends,
}

#[derive(Clone, Copy)]
enum Sends {
    All,
    /// Hangs up after so many bytes of the body.
    Part(usize),
    /// The body again and again, in chunks without a length.
    Endless,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), sends: Sends::All }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn cut(mut self, bytes: usize) -> Self {
        self.sends = Sends::Part(bytes);
        self
    }

    pub fn endless(mut self) -> Self {
        self.sends = Sends::Endless;
        self
    }

    pub fn unauthorized(challenge: &str) -> Self {
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[]}]}"#;
        Self::new(401, body).with("WWW-Authenticate", challenge)
    }

    pub fn json(value: serde_json::Value) -> Self {
        Self::new(200, value.to_string()).with("Content-Type", "application/json")
    }

    /// What the server on this port of loopback answers to the same request, asked without its `Authorization`.
    pub fn from_behind(port: u16, request: &Request) -> Self {
        let hop = ["authorization", "connection", "content-length", "transfer-encoding", "expect", "accept-encoding"];
        let headers = request.headers.iter().filter(|(name, _)| !hop.contains(&name.to_ascii_lowercase().as_str()));
        let headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match Client::tcp(port).send_with(&request.method, &request.path, &headers, request.body.clone()) {
            Err(error) => Self::new(502, format!("{error:#}")),
            Ok(answer) => {
                let kept = answer.headers.iter().filter(|(name, _)| {
                    // The length of a HEAD's answer is that of the body which is not sent.
                    let is_length = name.eq_ignore_ascii_case("content-length");
                    !name.eq_ignore_ascii_case("transfer-encoding") && (!is_length || request.method == "HEAD")
                });
                let plain = Self::new(answer.status, answer.body.to_vec());
                kept.fold(plain, |reply, (name, value)| reply.with(name, value.as_str()))
            }
        }
    }
}

/// Listens on a port of loopback until it is dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
    seen: Mutex<Vec<Request>>,
    sent: AtomicU64,
    closed: AtomicBool,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared =
            Arc::new(Shared { answer: Box::new(answer), seen: Mutex::default(), sent: 0.into(), closed: false.into() });
        std::thread::spawn({
            let shared = shared.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    if shared.closed.load(Ordering::Relaxed) {
                        return;
                    }
                    let shared = shared.clone();
                    std::thread::spawn(move || shared.serve(stream));
                }
            }
        });
        Self { address, shared }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked, without the look whether a registry is here.
    pub fn seen(&self) -> Vec<Request> {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|request| request.line() != "GET /v2/").cloned().collect()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }

    /// Bytes of bodies that the other side took.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = read(&mut stream) else { return };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        // The other side may hang up: that is its right.
        let _ = self.write(&mut stream, &request, (self.answer)(&request));
    }

    fn write(&self, stream: &mut TcpStream, request: &Request, reply: Reply) -> Result<()> {
        let Reply { status, headers, body, sends } = reply;
        let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
        for (name, value) in &headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has_length = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        match sends {
            Sends::Endless => head.push_str("Transfer-Encoding: chunked\r\n"),
            Sends::All | Sends::Part(_) if !has_length && status != 204 => {
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            Sends::All | Sends::Part(_) => {}
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let mut send = |part: &[u8]| {
            part.chunks(64 << 10).try_for_each(|piece| {
                self.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
                stream.write_all(piece)
            })
        };
        match sends {
            _ if request.method == "HEAD" => {}
            Sends::All => send(&body)?,
            Sends::Part(bytes) => send(&body[..bytes])?,
            Sends::Endless => {
                let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n"].concat();
                loop {
                    send(&chunk)?;
                }
            }
        }
        stream.shutdown(std::net::Shutdown::Write)
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        // A TLS hello is no request: it is hung up on.
        if bytes.first() == Some(&0x16) || !more(stream, &mut bytes) {
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect();
    let mut request = Request { method, path, headers, body: Vec::new() };
    let mut rest = bytes.split_off(end);
    if request.header("transfer-encoding").is_some() {
        while !rest.ends_with(b"0\r\n\r\n") {
            if !more(stream, &mut rest) {
                return None;
            }
        }
        request.body = dechunked(&rest);
    } else {
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while rest.len() < length {
            if !more(stream, &mut rest) {
                return None;
            }
        }
        request.body = rest;
    }
    Some(request)
}

/// Appends what comes next; false at the end.
fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(count @ 1..) => {
            bytes.extend_from_slice(&buffer[..count]);
            true
        }
        _ => false,
    }
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = find(rest, b"\r\n") {
        let length = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).unwrap_or(0);
        if length == 0 || rest.len() < end + 2 + length {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = rest.get(end + 4 + length..).unwrap_or_default();
    }
    body
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
