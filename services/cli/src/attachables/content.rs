//! Blobs of OCI layouts on this machine (containerd's content API): the daemon reads those that it lacks, and writes
//! caches. Each store that a build names is one folder; nothing outside of its `blobs` is reached.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use contexts::content as api;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use model::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::incoming::Incoming;
use crate::{layout, regular};

/// Bytes of one message.
const CHUNK_BYTES: usize = 256 << 10;
/// Messages that wait to be sent.
const MESSAGES: usize = 8;

pub const METHODS: [&str; 3] = [api::INFO, api::READ, api::WRITE];

/// Folders by the names that the daemon asks for.
#[derive(Debug, Clone, Default)]
pub struct Contents(pub BTreeMap<String, PathBuf>);

impl Contents {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn service(self) -> ContentServer {
        ContentServer(Arc::new(self))
    }

    fn folder(&self, metadata: &MetadataMap) -> Result<&Path, Status> {
        let name = metadata.get(api::STORE_ID).map(|name| String::from_utf8_lossy(name.as_bytes()));
        let name = name.ok_or_else(|| Status::invalid_argument("no content store is named"))?;
        let folder = self.0.get(name.as_ref()).map(PathBuf::as_path);
        folder.ok_or_else(|| Status::not_found(format!("unknown content store {name}")))
    }

    /// Where a blob of the store that a call names lies, or would.
    fn blob(&self, metadata: &MetadataMap, digest: &str) -> Result<PathBuf, Status> {
        let digest: Digest =
            digest.parse().map_err(|_| Status::invalid_argument(format!("{digest:?} is no digest")))?;
        Ok(layout::blob(self.folder(metadata)?, &digest))
    }
}

#[derive(Clone)]
pub struct ContentServer(Arc<Contents>);

impl NamedService for ContentServer {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl Service<http::Request<Body>> for ContentServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let contents = self.0.clone();
        async move {
            Ok(match request.uri().path() {
                api::INFO => Grpc::new(ProstCodec::default()).unary(Info(contents), request).await,
                api::READ => Grpc::new(ProstCodec::default()).server_streaming(Read(contents), request).await,
                api::WRITE => Grpc::new(ProstCodec::default()).streaming(Write(contents), request).await,
                other => Status::unimplemented(other.to_owned()).into_http(),
            })
        }
        .boxed()
    }
}

struct Info(Arc<Contents>);

impl UnaryService<api::InfoRequest> for Info {
    type Response = api::InfoResponse;
    type Future = std::future::Ready<Result<Response<api::InfoResponse>, Status>>;

    fn call(&mut self, request: Request<api::InfoRequest>) -> Self::Future {
        std::future::ready(self.info(&request))
    }
}

impl Info {
    fn info(&self, request: &Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        let digest = &request.get_ref().digest;
        let blob = self.0.blob(request.metadata(), digest)?;
        let found = regular::open(&blob).and_then(|file| file.metadata()).map_err(|e| failed(digest, &e))?;
        let size = i64::try_from(found.len()).unwrap_or(i64::MAX);
        Ok(Response::new(api::InfoResponse { info: Some(api::Info { digest: digest.clone(), size }) }))
    }
}

struct Read(Arc<Contents>);

impl ServerStreamingService<api::ReadRequest> for Read {
    type Response = api::ReadResponse;
    type ResponseStream = BoxStream<'static, Result<api::ReadResponse, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<api::ReadRequest>) -> Self::Future {
        std::future::ready(self.read(request))
    }
}

impl Read {
    fn read(
        &self,
        request: Request<api::ReadRequest>,
    ) -> Result<Response<BoxStream<'static, Result<api::ReadResponse, Status>>>, Status> {
        let blob = self.0.blob(request.metadata(), &request.get_ref().digest)?;
        let api::ReadRequest { digest, offset, size } = request.into_inner();
        let file = regular::open(&blob).map_err(|e| failed(&digest, &e))?;
        let (sender, sent) = mpsc::channel(MESSAGES);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send(file, (offset, size), &sender) {
                let _ = sender.blocking_send(Err(failed(&digest, &error)));
            }
        });
        Ok(Response::new(ReceiverStream::new(sent).boxed()))
    }
}

/// Sends a part of a file; a size of zero means all of it.
fn send(
    mut file: std::fs::File,
    (offset, size): (i64, i64),
    sender: &mpsc::Sender<Result<api::ReadResponse, Status>>,
) -> io::Result<()> {
    let mut offset = offset.max(0);
    file.seek(SeekFrom::Start(offset.unsigned_abs()))?;
    let mut part = file.take(if size <= 0 { u64::MAX } else { size.unsigned_abs() });
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = part.read(&mut buffer)?;
        let data = api::ReadResponse { offset, data: buffer[..count].to_vec() };
        if count == 0 || sender.blocking_send(Ok(data)).is_err() {
            return Ok(());
        }
        offset = offset.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

struct Write(Arc<Contents>);

impl StreamingService<api::WriteRequest> for Write {
    type Response = api::WriteResponse;
    type ResponseStream = BoxStream<'static, Result<api::WriteResponse, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<api::WriteRequest>>) -> Self::Future {
        let folder = match self.0.folder(request.metadata()) {
            Ok(folder) => folder.to_owned(),
            Err(status) => return std::future::ready(Err(status)),
        };
        let (sender, sent) = mpsc::channel(MESSAGES);
        tokio::spawn(async move {
            if let Err(status) = write(folder, request.into_inner(), &sender).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        std::future::ready(Ok(Response::new(ReceiverStream::new(sent).boxed())))
    }
}

/// Takes one blob; each message is answered.
async fn write(
    folder: PathBuf,
    mut messages: Streaming<api::WriteRequest>,
    answers: &mpsc::Sender<Result<api::WriteResponse, Status>>,
) -> Result<(), Status> {
    let mut incoming = Incoming::begin(folder).map_err(|e| failed("a blob", &e))?;
    while let Some(message) = messages.message().await? {
        // A local file does not keep the session waiting for long.
        let answer = incoming.take(message)?;
        let is_last = answer.action() == api::Action::Commit;
        if answers.send(Ok(answer)).await.is_err() || is_last {
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn failed(what: &str, error: &io::Error) -> Status {
    let text = format!("{what}: {}", crate::commands::os_words(error));
    match error.kind() {
        io::ErrorKind::NotFound => Status::not_found(format!("content {what}: not found")),
        io::ErrorKind::StorageFull => Status::resource_exhausted(text),
        io::ErrorKind::InvalidInput => Status::failed_precondition(text),
        _ => Status::internal(text),
    }
}
