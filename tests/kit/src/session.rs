//! The client's side of BuildKit's session protocol, for tests that are such a client themselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// A client's folders by name, each with its files.
pub type Folders = BTreeMap<&'static str, BTreeMap<&'static str, String>>;

/// Asks for another protocol on a new connection; what follows the answer's head is that protocol's.
pub async fn hand_over(socket: &Path, path: &str, headers: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.expect("connected");
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: h2c"), "{head}");
    stream
}

/// The client's side of a session: sends files by fsutil's protocol.
pub struct Files(pub Folders);

#[tonic::async_trait]
impl FileSync for Files {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;
    type TarStreamStream = Self::DiffCopyStream;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let values = |key: &str| request.metadata().get_all(key).iter().filter_map(|v| v.to_str().ok());
        let name = values("dir-name").next().unwrap_or_default().to_owned();
        let follow: Vec<String> = values("followpaths").map(str::to_owned).collect();
        let folder =
            self.0.get(name.as_str()).ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
        let wanted = |path: &str| follow.is_empty() || follow.iter().any(|follow| follow == path);
        let files: Vec<(&str, String)> =
            folder.iter().filter(|(path, _)| wanted(path)).map(|(path, content)| (*path, content.clone())).collect();
        let (sender, answers) = mpsc::channel(16);
        let mut packets = request.into_inner();
        tokio::spawn(async move {
            let packet = |kind: PacketType, id, data: &str, stat| {
                Ok(Packet { r#type: kind.into(), id, data: data.as_bytes().to_vec(), stat })
            };
            for (path, content) in &files {
                let stat =
                    Stat { path: (*path).to_owned(), mode: 0o644, size: content.len() as i64, ..Stat::default() };
                sender.send(packet(PacketType::PacketStat, 0, "", Some(stat))).await.expect("sent");
            }
            sender.send(packet(PacketType::PacketStat, 0, "", None)).await.expect("sent");
            while let Ok(Some(asked)) = packets.message().await {
                match asked.r#type() {
                    PacketType::PacketReq => {
                        for data in [files[asked.id as usize].1.as_str(), ""] {
                            sender.send(packet(PacketType::PacketData, asked.id, data, None)).await.expect("sent");
                        }
                    }
                    PacketType::PacketFin => {
                        return drop(sender.send(packet(PacketType::PacketFin, 0, "", None)).await);
                    }
                    _ => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("TarStream"))
    }
}

/// Opens a session that lasts as long as the runtime.
pub async fn open_session(socket: &Path, id: &str, folders: Folders) {
    let headers = format!(
        "X-Docker-Expose-Session-Uuid: {id}\r\nX-Docker-Expose-Session-Name: test\r\n\
         X-Docker-Expose-Session-Sharedkey: {id}\r\n\
         X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/DiffCopy\r\n"
    );
    let stream = hand_over(socket, "/session", &headers).await;
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(stream));
    tokio::spawn(Server::builder().add_service(FileSyncServer::new(Files(folders))).serve_with_incoming(incoming));
}
