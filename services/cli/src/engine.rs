//! The Docker Engine API's client: one connection for each request, since a command
//! makes few and every hijacked one needs its own.

use std::io;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::failure::{Failure, Outcome};
use crate::host::Host;
use crate::tls;

/// The newest API version that this client speaks.
pub const API_VERSION: &str = "1.51";

pub type Body = BoxBody<Bytes, io::Error>;

/// A hijacked connection.
pub type Raw = TokioIo<hyper::upgrade::Upgraded>;

pub struct Engine {
    host: Host,
    tls: tls::Flags,
    version: OnceLock<String>,
}

/// Method and path of a request, for errors.
type What = (Method, String);

/// One request before it is sent.
pub struct Call<'a> {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    body: Body,
    engine: &'a Engine,
}

impl Engine {
    /// TLS is for TCP only, as with Docker.
    pub fn new(host: Host, tls: tls::Flags) -> Self {
        Self { host, tls, version: OnceLock::new() }
    }

    /// The negotiated version: the server's, but not above ours.
    pub async fn version(&self) -> Outcome<&str> {
        if let Some(version) = self.version.get() {
            return Ok(version);
        }
        let request = request(Method::GET, "/_ping", &[], empty())?;
        let response = self.exchange(request).await?;
        let server = response.headers().get("api-version").and_then(|v| v.to_str().ok()).unwrap_or("1.24");
        let version = if minor(server) < minor(API_VERSION) { server } else { API_VERSION };
        Ok(self.version.get_or_init(|| version.to_owned()))
    }

    /// Whether the negotiated version is at least 1.`wanted`.
    pub async fn speaks(&self, wanted: u32) -> Outcome<bool> {
        Ok(minor(self.version().await?) >= wanted)
    }

    pub fn get(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub fn call(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        Call { method, path: path.into(), query: Vec::new(), headers: Vec::new(), body: empty(), engine: self }
    }

    async fn exchange(&self, request: Request<Body>) -> Outcome<Response<Incoming>> {
        let what = (request.method().clone(), request.uri().path().to_owned());
        let stream = self.connect(&what).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&what, &e))?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|e| self.broken(&what, &e))
    }

    /// No answer came. TLS has Docker's words; of what else may happen in between the whole chain is told.
    fn broken(&self, (method, path): &What, error: &(dyn std::error::Error + 'static)) -> Failure {
        let (scheme, address) = match &self.host {
            Host::Unix(_) => ("http", "docker"),
            Host::Tcp(address) if self.tls.are_on() => ("https", address.as_str()),
            Host::Tcp(address) => ("http", address.as_str()),
        };
        let chain = || trust::causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let why = tls::words(error, host_of(address)).unwrap_or_else(chain);
        let method = method.as_str();
        let method = format!("{}{}", &method[..1], method[1..].to_ascii_lowercase());
        Failure::new(format!("error during connect: {method} \"{scheme}://{address}{path}\": {why}"))
    }

    async fn connect(&self, what: &What) -> Outcome<Box<dyn Socket>> {
        let address = match &self.host {
            Host::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(|e| self.absent(&e))?)),
            Host::Tcp(address) => address,
        };
        let client = self.tls.client()?;
        let stream = TcpStream::connect(address).await.map_err(|e| self.absent(&e))?;
        match client {
            None => Ok(Box::new(stream)),
            Some(client) => {
                let secured = client.join(stream, host_of(address)).await;
                Ok(Box::new(secured.map_err(|e| self.broken(what, &e))?))
            }
        }
    }

    fn absent(&self, error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Failure::new(format!(
                "permission denied while trying to connect to the Docker daemon socket at {}",
                self.host
            )),
            _ => Failure::new(format!(
                "Cannot connect to the Docker daemon at {}. Is the docker daemon running?",
                self.host
            ))
            .hint("Start one with 'boxyard up', or say where it is with -H or BOXYARD_HOST."),
        }
    }
}

impl<'a> Call<'a> {
    pub fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds the parameter only when there is a value.
    pub fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds `name=1` when it is on.
    pub fn flag(self, name: &str, on: bool) -> Self {
        self.maybe(name, on.then_some("1"))
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn json(self, body: &Value) -> Self {
        let mut call = self.header("content-type", "application/json");
        call.body = full(body.to_string().into());
        call
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Sends, and turns an error status into the daemon's message.
    pub async fn send(self) -> Outcome<Response<Incoming>> {
        let engine = self.engine;
        let path = format!("/v{}{}", engine.version().await?, encode_query(&self.path, &self.query));
        let response = engine.exchange(request(self.method, &path, &self.headers, self.body)?).await?;
        let status = response.status();
        if status.as_u16() < 400 {
            return Ok(response);
        }
        let bytes = read_all(response).await.unwrap_or_default();
        let message = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|v| v["message"].as_str().map(str::to_owned))
            .unwrap_or_else(|| match String::from_utf8_lossy(&bytes).trim() {
                "" => status.to_string(),
                text => text.to_owned(),
            });
        Err(Failure::daemon(status.as_u16(), message.trim()))
    }

    /// Sends and reads the whole answer.
    pub async fn bytes(self) -> Outcome<Bytes> {
        read_all(self.send().await?).await
    }

    /// Sends and reads the answer as JSON; null when there is none.
    pub async fn value(self) -> Outcome<Value> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&bytes)?) }
    }

    /// Sends with `Upgrade: tcp` and hands over the connection.
    pub async fn hijack(self) -> Outcome<Raw> {
        Ok(TokioIo::new(self.upgrade("tcp").await?))
    }

    /// Sends with `Upgrade` and hands over the connection, on which the other protocol is spoken.
    pub async fn upgrade(self, protocol: &str) -> Outcome<hyper::upgrade::Upgraded> {
        let response = self.header("upgrade", protocol).header("connection", "Upgrade").send().await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status().as_u16();
            return Err(Failure::new(format!("unable to upgrade to {protocol}, received {status}")));
        }
        let upgraded = hyper::upgrade::on(response).await;
        upgraded.map_err(|e| Failure::new(format!("the connection could not be taken over: {e}")))
    }
}

/// A body from a stream of chunks.
pub fn streamed(stream: impl futures::Stream<Item = io::Result<Bytes>> + Send + Sync + 'static) -> Body {
    BodyExt::boxed(StreamBody::new(futures::StreamExt::map(stream, |chunk| chunk.map(Frame::data))))
}

pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub async fn read_all(response: Response<Incoming>) -> Outcome<Bytes> {
    let collected = response.into_body().collect().await;
    Ok(collected.map_err(|e| Failure::new(format!("the daemon's answer broke off: {e}")))?.to_bytes())
}

/// The next chunk of an answer, `None` at its end.
pub async fn next_chunk(body: &mut Incoming) -> Outcome<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::new(format!("the daemon's answer broke off: {e}")))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Escapes one path segment or a name with slashes.
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b':' | b'@' => {
                out.push(byte as char);
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn encode_query(path: &str, query: &[(String, String)]) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let mut encoder = url::form_urlencoded::Serializer::new(format!("{path}?"));
    let start = path.len() + 1;
    encoder = url::form_urlencoded::Serializer::for_suffix(encoder.finish(), start);
    encoder.extend_pairs(query);
    encoder.finish()
}

fn request(method: Method, path: &str, headers: &[(&'static str, String)], body: Body) -> Outcome<Request<Body>> {
    let mut builder = Request::builder().method(method).uri(path).header("host", "docker");
    builder = builder.header("user-agent", concat!("boxyard/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    builder.body(body).map_err(|e| Failure::new(format!("the request cannot be written: {e}")))
}

/// The host of `host:port`.
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn minor(version: &str) -> u32 {
    version.split_once('.').and_then(|(_, minor)| minor.parse().ok()).unwrap_or(24)
}

/// A connection to the daemon: a socket's, a port's, or TLS over one.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_paths_are_escaped() {
        assert_eq!(encode_query("/a", &[]), "/a");
        assert_eq!(encode_query("/a", &[("x".into(), "1 &".into()), ("y".into(), "z".into())]), "/a?x=1+%26&y=z");
        assert_eq!(escape("a/b:c d?"), "a/b:c%20d%3F");
    }
}
