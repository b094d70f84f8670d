//! The client's side of a session: sends files, has none to give, or one without an end.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use kit::session::{Files, Folders, hand_over};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a client offers.
#[derive(Default)]
pub struct Offered {
    pub folders: Folders,
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

/// A Dockerfile, and beside it the files of the context.
pub fn folders(dockerfile: &'static str, context: &[(&'static str, &'static str)]) -> Folders {
    BTreeMap::from([
        ("dockerfile", BTreeMap::from([("Dockerfile", dockerfile.to_owned())])),
        ("context", context.iter().map(|(path, content)| (*path, (*content).to_owned())).collect()),
    ])
}

/// Opens a session that lasts as long as the runtime.
pub async fn open(socket: &Path, id: &str, offered: Offered) {
    let headers = format!(
        "X-Docker-Expose-Session-Uuid: {id}\r\nX-Docker-Expose-Session-Name: test\r\n\
         X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/DiffCopy\r\n"
    );
    let stream = hand_over(socket, "/session", &headers).await;
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(stream));
    let files = match (offered.is_unavailable, offered.endless) {
        (true, _) => Routes::new(FileSyncServer::new(Unavailable)),
        (false, Some(endless)) => Routes::new(FileSyncServer::new(EndlessFile(Files(offered.folders), endless))),
        (false, None) => Routes::new(FileSyncServer::new(Files(offered.folders))),
    };
    tokio::spawn(Server::builder().add_routes(files).serve_with_incoming(incoming));
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
