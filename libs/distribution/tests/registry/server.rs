//! A registry that does what a test tells it, down to the bytes: real sockets, no library that would mend its faults.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

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
        let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Self::new(401, body).with("WWW-Authenticate", challenge)
    }

    pub fn json(value: serde_json::Value) -> Self {
        Self::new(200, value.to_string()).with("Content-Type", "application/json")
    }
}

/// Listens until the test's runtime ends.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    sent: Arc<Mutex<u64>>,
}

impl Server {
    pub async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = Self { address, seen: Arc::default(), sent: Arc::default() };
        let (seen, sent, answer) = (server.seen.clone(), server.sent.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, sent, answer) = (seen.clone(), sent.clone(), answer.clone());
                tokio::spawn(async move {
                    let Some(request) = read(&mut stream).await else { return };
                    seen.lock().expect("not poisoned").push(request.clone());
                    let reply = answer(&request);
                    let _ = write(&mut stream, &request, reply, &sent).await;
                });
            }
        });
        server
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked, without the look whether a registry is here.
    pub fn seen(&self) -> Vec<Request> {
        let seen = self.seen.lock().expect("not poisoned");
        seen.iter().filter(|request| request.line() != "GET /v2/").cloned().collect()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }

    /// Bytes of bodies that the other side took.
    pub fn sent_bytes(&self) -> u64 {
        *self.sent.lock().expect("not poisoned")
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        // A TLS hello is no request: it is hung up on.
        if bytes.first() == Some(&0x16) || stream.read_buf(&mut bytes).await.ok()? == 0 {
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
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
        while find(&rest, b"0\r\n\r\n").is_none() {
            if stream.read_buf(&mut rest).await.ok()? == 0 {
                return None;
            }
        }
        request.body = dechunked(&rest);
    } else {
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while rest.len() < length {
            if stream.read_buf(&mut rest).await.ok()? == 0 {
                return None;
            }
        }
        request.body = rest;
    }
    Some(request)
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

async fn write(stream: &mut TcpStream, request: &Request, reply: Reply, sent: &Mutex<u64>) -> std::io::Result<()> {
    let Reply { status, headers, body, sends } = reply;
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in &headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let has_length = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    match sends {
        Sends::Endless => head.push_str("Transfer-Encoding: chunked\r\n"),
        Sends::All | Sends::Part(_) if !has_length => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
        Sends::All | Sends::Part(_) => {}
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let count = |bytes: usize| *sent.lock().expect("not poisoned") += bytes as u64;
    match sends {
        _ if request.method == "HEAD" => {}
        Sends::All => {
            stream.write_all(&body).await?;
            count(body.len());
        }
        Sends::Part(bytes) => {
            stream.write_all(&body[..bytes]).await?;
            count(bytes);
        }
        Sends::Endless => loop {
            stream.write_all(format!("{:x}\r\n", body.len()).as_bytes()).await?;
            stream.write_all(&body).await?;
            stream.write_all(b"\r\n").await?;
            count(body.len());
        },
    }
    stream.shutdown().await
}
