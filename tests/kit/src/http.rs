//! A blocking client for an engine's HTTP API over its unix socket or TCP, for what the docker command cannot ask.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// One whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body where it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("status {}, not JSON ({error}): {}", self.status, self.text()))
    }

    /// Docker's error text, from `{"message": ...}`.
    #[track_caller]
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Talks to one address; each request uses its own connection.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Unix(PathBuf),
    /// On loopback.
    Tcp(u16),
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self { place: Place::Unix(socket.to_owned()) }
    }

    /// One that talks to a port of 127.0.0.1.
    pub fn tcp(port: u16) -> Self {
        Self { place: Place::Tcp(port) }
    }

    /// Sends one request and reads the whole answer.
    /// The JSON of a path that answers 200.
    #[track_caller]
    pub fn get_json(&self, path: &str) -> serde_json::Value {
        let answer = self.send("GET", path, "", "").expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub fn send(&self, method: &str, path: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Answer> {
        self.send_with(method, path, &[("Content-Type", content_type)], body)
    }

    /// Sends one request with these headers besides `Host` (unless that is among them), and reads the whole answer.
    pub fn send_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let exchange = self.exchange(method, path, headers, body.into());
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(exchange)
    }

    async fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer> {
        let stream: Box<dyn Stream> = match &self.place {
            Place::Unix(socket) => Box::new(UnixStream::connect(socket).await.context("connecting to the engine")?),
            Place::Tcp(port) => Box::new(TcpStream::connect(("127.0.0.1", *port)).await.context("connecting")?),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("Host", "docker");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let response = sender.send_request(request).await.with_context(|| format!("{method} {path}"))?;
        let (head, body) = response.into_parts();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let body = body.collect().await.with_context(|| format!("reading {method} {path}"))?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers, body })
    }
}

/// A port of loopback that was free just now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
