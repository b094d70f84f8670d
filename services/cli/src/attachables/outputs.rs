//! What was built, received (`FileSend/DiffCopy`): a whole file as bytes, or a folder file by file with fsutil's packets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_send_server as files;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server as bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use super::receive::receive;
use crate::draft;

/// Which output the daemon sends.
const ID: &str = "buildkit-attachable-exporter-id";
/// Packets that wait to be sent.
const PACKETS: usize = 64;

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// One file.
    File(PathBuf),
    Stdout,
    /// Files below a folder.
    Folder(PathBuf),
}

/// Destinations by the number of their output.
#[derive(Debug, Default)]
pub struct Outputs {
    places: BTreeMap<u32, Destination>,
    stdout: Mutex<Written>,
}

/// How much of an output has gone to stdout, from where nothing comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Written {
    #[default]
    Nothing,
    /// Its daemon has ended before the end of it.
    Part,
    All,
}

impl Outputs {
    pub fn new(places: BTreeMap<u32, Destination>) -> Self {
        Self { places, stdout: Mutex::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A daemon that has not heard that we have an output sends it again; says whether it is to be written.
    fn begins(&self, destination: &Destination) -> Result<bool, Status> {
        if *destination != Destination::Stdout {
            return Ok(true);
        }
        let mut written = self.stdout.lock().expect("no holder panics");
        match std::mem::replace(&mut *written, Written::Part) {
            Written::Nothing => Ok(true),
            Written::Part => Err(Status::failed_precondition("the first part of the output is on stdout already")),
            Written::All => {
                *written = Written::All;
                Ok(false)
            }
        }
    }

    pub fn service(self) -> FileSend {
        let outputs = Arc::new(self);
        FileSend {
            bytes: bytes::FileSendServer::from_arc(outputs.clone()),
            files: files::FileSendServer::from_arc(outputs.clone()),
            outputs,
        }
    }

    fn of<T>(&self, request: &Request<T>) -> Result<Destination, Status> {
        let id = request.metadata().get(ID).and_then(|id| id.to_str().ok());
        self.find(id).cloned().ok_or_else(|| Status::not_found("no such output"))
    }

    /// A daemon that does not say which sends the only one.
    fn find(&self, id: Option<&str>) -> Option<&Destination> {
        match id {
            Some(id) => self.places.get(&id.parse().ok()?),
            None => self.places.values().next(),
        }
    }
}

/// Both forms have one name: which one a call is of, its destination says.
#[derive(Clone)]
pub struct FileSend {
    bytes: bytes::FileSendServer<Outputs>,
    files: files::FileSendServer<Outputs>,
    outputs: Arc<Outputs>,
}

impl NamedService for FileSend {
    const NAME: &'static str = bytes::SERVICE_NAME;
}

impl Service<http::Request<Body>> for FileSend {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let id = request.headers().get(ID).and_then(|id| id.to_str().ok());
        match self.outputs.find(id) {
            Some(Destination::Folder(_)) => self.files.call(request),
            _ => self.bytes.call(request),
        }
    }
}

#[tonic::async_trait]
impl bytes::FileSend for Outputs {
    type DiffCopyStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let destination = self.of(&request)?;
        let mut messages = request.into_inner();
        let failed = |error: io::Error| Status::internal(error.to_string());
        let is_new = self.begins(&destination)?;
        let mut file = Sink::open(&destination).map_err(failed)?;
        while let Some(message) = messages.message().await? {
            // A local file does not keep the session waiting for long.
            if is_new {
                file.write(&message.data).map_err(failed)?;
            }
        }
        file.finish().map_err(failed)?;
        if destination == Destination::Stdout {
            *self.stdout.lock().expect("no holder panics") = Written::All;
        }
        Ok(Response::new(futures::stream::empty().boxed()))
    }
}

/// A file that is in its place once it is whole, or stdout.
enum Sink {
    File { draft: tempfile::NamedTempFile, path: PathBuf },
    Stdout,
}

impl Sink {
    fn open(destination: &Destination) -> io::Result<Self> {
        let Destination::File(path) = destination else { return Ok(Self::Stdout) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self::File { draft: draft::begin(folder)?, path: path.clone() })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File { draft, .. } => draft.write_all(bytes),
            Self::Stdout => io::stdout().lock().write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::File { draft, path } => draft::finish(draft, &path),
            Self::Stdout => io::stdout().lock().flush(),
        }
    }
}

#[tonic::async_trait]
impl files::FileSend for Outputs {
    type DiffCopyStream = BoxStream<'static, Result<Packet, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let Destination::Folder(root) = self.of(&request)? else { return Err(Status::internal("no folder")) };
        let (to_daemon, sent) = mpsc::channel(PACKETS);
        tokio::spawn(async move {
            if let Err(error) = receive(&root, request.into_inner(), &to_daemon).await {
                let data = error.to_string().into_bytes();
                let told = Packet { r#type: PacketType::PacketErr.into(), data, ..Packet::default() };
                let _ = to_daemon.send(Ok(told)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(sent).boxed()))
    }
}
