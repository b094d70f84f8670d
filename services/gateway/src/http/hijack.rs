use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use streams::{Duplex, Pending, Reader, Writer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::app::{App, Failure, Outcome};

pub const RAW: &str = "application/vnd.docker.raw-stream";
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

const DRAINED_BYTES: usize = 1 << 20;

pub fn ticket(app: &App) -> (proto::Ticket, Pending) {
    let (ticket, pending) = app.tickets.issue();
    (proto::Ticket { secret: ticket.secret, address: ticket.address }, pending)
}

/// The connection under a request, if its client wants to take it over.
pub fn upgrade_of(request: &mut Request) -> Option<OnUpgrade> {
    let wanted = request.headers().contains_key(header::UPGRADE);
    wanted.then(|| hyper::upgrade::on(request))
}

/// Answers 101 and joins the client's connection with the stream; without an upgrade the output is the body.
pub fn join(upgrade: Option<OnUpgrade>, stream: Duplex, content_type: &'static str) -> Response {
    let Some(upgrade) = upgrade else { return output_held(stream, content_type) };
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            splice(TokioIo::new(upgraded), stream).await;
        }
    });
    switching(content_type)
}

/// [`join`] with a stream that is opened once the client has its 101, as Docker does it: clients that read the answer
/// through a buffer lose what follows too closely. Why there is no stream is what the client reads.
pub fn join_when(
    upgrade: OnUpgrade,
    content_type: &'static str,
    open: impl Future<Output = Outcome<Duplex>> + Send + 'static,
) -> Response {
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut client = TokioIo::new(upgraded);
        match open.await {
            Ok(stream) => splice(client, stream).await,
            Err(failure) => {
                let _ = client.write_all(&words(&failure, content_type)).await;
                let _ = client.shutdown().await;
            }
        }
    });
    switching(content_type)
}

async fn splice(client: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static, stream: Duplex) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let Duplex { mut reader, writer } = stream;
    let input = tokio::spawn(async move { pump(&mut from_client, writer).await });
    while let Ok(Some(bytes)) = reader.next().await {
        if to_client.write_all(&bytes).await.is_err() || to_client.flush().await.is_err() {
            break;
        }
    }
    let _ = to_client.shutdown().await;
    input.abort();
}

/// A failure as a stream brings it: a frame of standard output where there is no terminal.
fn words(failure: &Failure, content_type: &str) -> Vec<u8> {
    let text = format!("{failure}\r\n");
    let mut bytes = Vec::new();
    if content_type == MULTIPLEXED {
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes.extend(text.into_bytes());
    bytes
}

fn switching(content_type: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    response
}

/// A stream that holds only why there is none.
pub fn say(failure: &Failure, content_type: &'static str) -> Response {
    let mut response = Response::new(Body::from(words(failure, content_type)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn pump(from_client: &mut (impl tokio::io::AsyncRead + Unpin), mut writer: Writer) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from_client.read(&mut buffer).await {
            Ok(0) => {
                let _ = writer.finish().await;
                return;
            }
            Ok(n) => {
                if writer.send(bytes::Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// The stream that a call's other side dials back with; where it does not come, the call says why.
pub async fn accept_or_fail<R: Send + 'static>(
    pending: Pending,
    mut call: tokio::task::JoinHandle<Result<R, bus::Error>>,
) -> Outcome<Reader> {
    let accept = pending.accept();
    tokio::pin!(accept);
    tokio::select! {
        duplex = &mut accept => Ok(duplex?.reader),
        done = &mut call => match done {
            Ok(Err(why)) => Err(why.into()),
            // It is done already: a short stream was dialled before.
            _ => Ok(accept.await?.reader),
        }
    }
}

/// [`output`] of a stream that has begun; one that fails before its first byte is answered as an error.
pub async fn output_or_fail(mut reader: Reader, content_type: &'static str) -> super::answer::Answer {
    let first = reader.next().await?;
    let first = futures::stream::iter(first.map(Ok::<_, streams::Error>));
    let mut response = Response::new(Body::from_stream(first.chain(reader.into_stream())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// A stream's output as a response; one that breaks off breaks the response off too.
pub fn output(reader: Reader, content_type: &'static str) -> Response {
    let mut response = Response::new(Body::from_stream(reader.into_stream()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The same, and the other side sees at once when the client goes: its way back is closed then, and not before.
pub fn output_held(stream: Duplex, content_type: &'static str) -> Response {
    let Duplex { reader, writer } = stream;
    let held = reader.into_stream().map(move |item| {
        let _ = &writer;
        item
    });
    let mut response = Response::new(Body::from_stream(held));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Reads a little of a body that is not wanted, since many clients read the answer only when they have sent it.
pub async fn drain(mut body: impl Stream<Item = Result<bytes::Bytes, axum::Error>> + Unpin) {
    let mut left = DRAINED_BYTES;
    let read = async {
        while left > 0
            && let Some(Ok(chunk)) = body.next().await
        {
            left = left.saturating_sub(chunk.len());
        }
    };
    // A client that sends nothing more waits for the answer.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), read).await;
}

/// Sends a request's body over the stream that the other side dials back.
pub async fn send_body(
    pending: Pending,
    body: impl Stream<Item = Result<bytes::Bytes, axum::Error>> + Send + Unpin,
) -> Outcome<()> {
    // The reader is kept, so that the connection stays whole until the body is through.
    let Duplex { reader: _reader, mut writer } = pending.accept().await?;
    let mut body = body;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(bytes) => writer.send(bytes).await?,
            Err(error) => {
                writer.fail(&format!("the client broke off: {error}")).await?;
                return Ok(());
            }
        }
    }
    Ok(writer.finish().await?)
}
