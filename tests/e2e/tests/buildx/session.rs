//! The client's side of a session: sends files, or a whole context in one piece, and takes what was built.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_send_server as files;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server as bytes;
use bollard_buildkit_proto::moby::upload::v1 as upload;
use kit::session::{Files, Folders, hand_over};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What was built, by path; one whole file has none.
pub type Built = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A Go file mode's bit of a folder.
const FOLDER: u32 = 1 << 31;

/// What a client offers.
#[derive(Default)]
pub struct Offered {
    pub folders: Folders,
    /// A context in one piece.
    pub upload: Vec<u8>,
    /// Takes what is built, file by file or as one.
    pub takes: Option<Takes>,
    /// It says of its files that they cannot be had now.
    pub is_unavailable: bool,
    /// A file of its context has no end.
    pub endless: Option<Endless>,
}

/// Tells of a file that is sent without an end.
#[derive(Clone, Default)]
pub struct Endless {
    /// So many parts of it were taken.
    pub parts: watch::Sender<u64>,
    /// Nobody takes more of it.
    pub is_left: watch::Sender<bool>,
}

#[derive(Clone)]
pub enum Takes {
    Files(Built),
    Whole(Built),
}

/// A Dockerfile, and beside it the files of the context.
pub fn folders(dockerfile: &'static str, context: &[(&'static str, &'static str)]) -> Folders {
    BTreeMap::from([
        ("dockerfile", BTreeMap::from([("Dockerfile", dockerfile.to_owned())])),
        ("context", context.iter().map(|(path, content)| (*path, (*content).to_owned())).collect()),
    ])
}

/// Opens a session that lasts as long as the runtime.
pub async fn open(socket: &Path, id: &str, offered: Offered) {
    let methods =
        ["/moby.filesync.v1.FileSync/DiffCopy", "/moby.filesync.v1.FileSend/DiffCopy", "/moby.upload.v1.Upload/Pull"];
    let methods: String =
        methods.iter().map(|method| format!("X-Docker-Expose-Session-Grpc-Method: {method}\r\n")).collect();
    let headers = format!("X-Docker-Expose-Session-Uuid: {id}\r\nX-Docker-Expose-Session-Name: test\r\n{methods}");
    let stream = hand_over(socket, "/session", &headers).await;
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(stream));
    let files = match (offered.is_unavailable, offered.endless) {
        (true, _) => Routes::new(FileSyncServer::new(Unavailable)),
        (false, Some(endless)) => Routes::new(FileSyncServer::new(EndlessFile(Files(offered.folders), endless))),
        (false, None) => Routes::new(FileSyncServer::new(Files(offered.folders))),
    };
    let mut routes = files.add_service(upload::upload_server::UploadServer::new(Upload(offered.upload)));
    match offered.takes {
        Some(Takes::Files(built)) => routes = routes.add_service(files::FileSendServer::new(TakesFiles(built))),
        Some(Takes::Whole(built)) => routes = routes.add_service(bytes::FileSendServer::new(TakesWhole(built))),
        None => {}
    }
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
}

fn packet(kind: PacketType, id: u32) -> Result<Packet, Status> {
    Ok(Packet { r#type: kind.into(), id, ..Packet::default() })
}

struct Unavailable;

#[tonic::async_trait]
impl FileSync for Unavailable {
    type DiffCopyStream = Answers<Packet>;
    type TarStreamStream = Answers<Packet>;

    async fn diff_copy(&self, _: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        Err(Status::unavailable("the disk is away"))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("TarStream"))
    }
}

/// Sends its folders, but in place of the context one file, part by part.
struct EndlessFile(Files, Endless);

#[tonic::async_trait]
impl FileSync for EndlessFile {
    type DiffCopyStream = Answers<Packet>;
    type TarStreamStream = Answers<Packet>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        if request.metadata().get("dir-name").is_none_or(|name| name != "context") {
            return self.0.diff_copy(request).await;
        }
        let mut packets = request.into_inner();
        let (sender, answers) = mpsc::channel(1);
        let endless = self.1.clone();
        tokio::spawn(async move {
            let stat = Stat { path: "file".to_owned(), mode: 0o644, size: 1 << 40, ..Stat::default() };
            let listed = Packet { stat: Some(stat), ..packet(PacketType::PacketStat, 0).expect("made") };
            for told in [Ok(listed), packet(PacketType::PacketStat, 0)] {
                sender.send(told).await.expect("sent");
            }
            while !matches!(packets.message().await, Ok(Some(asked)) if asked.r#type() == PacketType::PacketReq) {}
            let part = || Packet { data: vec![7; 64 << 10], ..packet(PacketType::PacketData, 0).expect("made") };
            while sender.send(Ok(part())).await.is_ok() {
                endless.parts.send_modify(|parts| *parts += 1);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            endless.is_left.send_replace(true);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("TarStream"))
    }
}

struct Upload(Vec<u8>);

#[tonic::async_trait]
impl upload::upload_server::Upload for Upload {
    type PullStream = Answers<upload::BytesMessage>;

    async fn pull(
        &self,
        request: Request<Streaming<upload::BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let value = |key: &str| request.metadata().get(key).and_then(|value| value.to_str().ok());
        assert_eq!((value("urlhost"), value("urlpath")), (Some("buildkit-session"), Some("/the-context")));
        let chunks: Vec<_> =
            self.0.chunks(1000).map(|chunk| Ok(upload::BytesMessage { data: chunk.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}

struct TakesWhole(Built);

#[tonic::async_trait]
impl bytes::FileSend for TakesWhole {
    type DiffCopyStream = Answers<BytesMessage>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let mut messages = request.into_inner();
        let mut all = Vec::new();
        while let Some(message) = messages.message().await? {
            all.extend(message.data);
        }
        self.0.lock().expect("no holder panics").insert(String::new(), all);
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}

struct TakesFiles(Built);

#[tonic::async_trait]
impl files::FileSend for TakesFiles {
    type DiffCopyStream = Answers<Packet>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let mut packets = request.into_inner();
        let (sender, answers) = mpsc::channel(16);
        let built = self.0.clone();
        tokio::spawn(async move {
            let (mut stats, mut open, mut is_listed) = (Vec::new(), 0, false);
            while let Ok(Some(sent)) = packets.message().await {
                match (sent.r#type(), sent.stat) {
                    (PacketType::PacketStat, Some(stat)) => stats.push(stat),
                    (PacketType::PacketStat, None) => {
                        is_listed = true;
                        for (id, stat) in (0..).zip(&stats) {
                            if stat.mode & FOLDER == 0 {
                                open += 1;
                                sender.send(packet(PacketType::PacketReq, id)).await.expect("sent");
                            }
                        }
                    }
                    (PacketType::PacketData, _) if sent.data.is_empty() => open -= 1,
                    (PacketType::PacketData, _) => {
                        let path = stats[sent.id as usize].path.clone();
                        built.lock().expect("no holder panics").entry(path).or_default().extend(sent.data);
                    }
                    _ => return,
                }
                if is_listed && open == 0 {
                    let _ = sender.send(packet(PacketType::PacketFin, 0)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
