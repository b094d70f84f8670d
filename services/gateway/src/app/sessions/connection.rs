use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::body::Body;

/// How much a client may send of one answer, and of all, before it was read.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// HTTP/2 to a client that serves gRPC on a connection that it has opened itself. Clones share it.
#[derive(Clone)]
pub struct Connection(http2::SendRequest<Body>);

impl Connection {
    /// The connection, and what has to run for it; that ends with the connection.
    pub async fn open(
        io: impl hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    ) -> hyper::Result<(Self, impl Future<Output = ()> + Send)> {
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(io)
            .await?;
        let running = connection.unwrap_or_else(|error| tracing::debug!(%error, "a client's session ended"));
        Ok((Self(send), running))
    }

    /// gRPC servers want an authority, whatever it is.
    pub fn origin() -> Uri {
        Uri::from_static("http://localhost")
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, hyper::Result<Self::Response>>;

    /// Always: a closed connection is told by the call, as the source of its status. What generated clients make of an error
    /// here has no source, and looks like the client's own word.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}
