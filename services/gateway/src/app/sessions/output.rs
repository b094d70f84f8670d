//! What was built goes to the client: a whole file by `FileSend/DiffCopy` with bytes, or file by file with fsutil's packets.

use std::collections::HashSet;

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as FilesClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient as BytesClient;
use contexts::{Kind, Pack, Tree, stat_of};
use distribution::Store;
use futures::TryStreamExt as _;
use model::ErrorKind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};

use super::connection::Connection;
use super::{Session, refused};
use crate::app::{App, Failure, Outcome};

const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Of one message, in bytes: what BuildKit's clients send themselves.
const CHUNK_BYTES: usize = 32 << 10;
/// Messages that wait for the client.
const MESSAGES: usize = 32;

impl App {
    /// Sends an output of a build to its client; returns when the client has it.
    pub async fn send_output(&self, user: &str, request: proto::OutputSend) -> Outcome<proto::Empty> {
        let (session, options) = self.session_of(user, &request.build_id, request.attempt).await?;
        session.must_serve(METHOD)?;
        let output = options.outputs.get(request.index as usize);
        let output = output.ok_or_else(|| Failure::invalid(format!("the build has no output {}", request.index)))?;
        let blob = request.blob.as_ref().ok_or_else(|| Failure::invalid("an output without content"))?;
        let digest = blob.digest.parse().map_err(|_| Failure::invalid("an output without a digest"))?;
        let pack = Pack { digest, size: blob.size };
        let metadata = metadata_of(&request)?;
        let is_folder =
            output.r#type == "local" || contexts::is_folder(output.attributes.get("tar").map(String::as_str));
        match is_folder {
            true => send_files(&session, &self.store, pack, metadata).await?,
            false => send_file(&session, &self.store, &pack, metadata).await?,
        }
        Ok(proto::Empty {})
    }
}

/// What the exporter tells, and which one it is.
fn metadata_of(request: &proto::OutputSend) -> Outcome<MetadataMap> {
    let mut metadata = MetadataMap::new();
    let invalid = |key: &str| Failure::invalid(format!("{key:?} of an output cannot be sent"));
    for (key, value) in &request.metadata {
        let name = format!("exporter-md-{}", key.to_ascii_lowercase());
        let name: MetadataKey<_> = name.parse().map_err(|_| invalid(key))?;
        metadata.insert(name, value.parse().map_err(|_| invalid(key))?);
    }
    metadata.insert("buildkit-attachable-exporter-id", MetadataValue::from(request.index));
    Ok(metadata)
}

/// A blob as one file.
async fn send_file(session: &Session, store: &Store, blob: &Pack, metadata: MetadataMap) -> Outcome<()> {
    let (to_client, messages) = mpsc::channel(MESSAGES);
    let mut request = tonic::Request::new(ReceiverStream::new(messages));
    *request.metadata_mut() = metadata;
    let mut client = BytesClient::with_origin(session.connection.clone(), Connection::origin());
    let sending = async {
        let mut content = store.get(&blob.digest).await?;
        while let Some(bytes) = content.try_next().await? {
            for chunk in bytes.chunks(CHUNK_BYTES) {
                if to_client.send(BytesMessage { data: chunk.to_vec() }).await.is_err() {
                    // The client's own word tells why.
                    return Ok(());
                }
            }
        }
        drop(to_client);
        Ok::<_, Failure>(())
    };
    let receiving = async {
        let mut answer = client.diff_copy(request).await.map_err(|status| refused(&status))?.into_inner();
        while answer.message().await.map_err(|status| refused(&status))?.is_some() {}
        Ok(())
    };
    tokio::try_join!(sending, receiving).map(drop)
}

/// The files of a tar, one by one.
async fn send_files(session: &Session, store: &Store, tar: Pack, metadata: MetadataMap) -> Outcome<()> {
    let reader = store.get_to_reader(&tar.digest).await?;
    let tree = tokio::task::spawn_blocking(move || contexts::of_tar(reader, tar)).await;
    let tree = tree.map_err(|error| Failure::new(ErrorKind::Internal, error.to_string()))?;
    let tree = tree.map_err(|error| Failure::new(error.kind(), error.to_string()))?;
    let (to_client, messages) = mpsc::channel(MESSAGES);
    let mut request = tonic::Request::new(ReceiverStream::new(messages));
    *request.metadata_mut() = metadata;
    let mut client = FilesClient::with_origin(session.connection.clone(), Connection::origin());
    // A client asks for each file once, so there are at most as many requests as files.
    let (asked, requests) = mpsc::unbounded_channel();
    let receiving = async {
        let mut packets = client.diff_copy(request).await.map_err(|status| refused(&status))?.into_inner();
        let mut open: HashSet<u32> = (0..).zip(&tree.entries).filter(|(_, e)| is_file(e)).map(|(id, _)| id).collect();
        while let Some(packet) = packets.message().await.map_err(|status| refused(&status))? {
            match packet.r#type() {
                PacketType::PacketReq if open.remove(&packet.id) => drop(asked.send(Some(packet.id))),
                PacketType::PacketReq => return Err(Failure::invalid(format!("invalid file id {}", packet.id))),
                PacketType::PacketFin => drop(asked.send(None)),
                PacketType::PacketErr => {
                    let why = String::from_utf8_lossy(&packet.data);
                    return Err(Failure::invalid(format!("error from receiver: {why}")));
                }
                _ => {}
            }
        }
        Ok(())
    };
    tokio::try_join!(serve_files(store, &tree, to_client, requests), receiving).map(drop)
}

fn is_file(entry: &contexts::Entry) -> bool {
    matches!(entry.kind, Kind::File { .. })
}

/// Lists the tree, then sends what the client asks for until it has all.
async fn serve_files(
    store: &Store,
    tree: &Tree,
    to_client: mpsc::Sender<Packet>,
    mut requests: mpsc::UnboundedReceiver<Option<u32>>,
) -> Outcome<()> {
    let packet = |what: PacketType, id: u32| Packet { r#type: what.into(), id, ..Packet::default() };
    let stats = tree.entries.iter().map(|entry| Some(stat_of(entry))).chain([None]);
    for stat in stats {
        if to_client.send(Packet { stat, ..packet(PacketType::PacketStat, 0) }).await.is_err() {
            return Ok(());
        }
    }
    while let Some(Some(id)) = requests.recv().await {
        let Some(Kind::File { content, .. }) = tree.entries.get(id as usize).map(|entry| &entry.kind) else { continue };
        if let Some(pack) = content.pack {
            let mut bytes = store.get_range(&tree.packs[pack].digest, content.offset, content.size).await?;
            while let Some(bytes) = bytes.try_next().await? {
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    let data = Packet { data: chunk.to_vec(), ..packet(PacketType::PacketData, id) };
                    if to_client.send(data).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        if to_client.send(packet(PacketType::PacketData, id)).await.is_err() {
            return Ok(());
        }
    }
    let _ = to_client.send(packet(PacketType::PacketFin, 0)).await;
    Ok(())
}
