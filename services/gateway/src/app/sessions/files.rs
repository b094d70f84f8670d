//! The receiving side of BuildKit's `FileSync/DiffCopy` (fsutil's protocol): what the client sends goes into the layer
//! store while it comes, and only a few packs of it are in memory at once.

use std::collections::HashMap;

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_client::FileSyncClient;
use bytes::Bytes;
use contexts::{Known, Limits, Output, Pack, Receiver, Tree};
use distribution::Store;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::connection::Connection;
use super::{Session, refused};
use crate::app::{Failure, Outcome};

const METHOD: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Packs that are on their way into the store.
const UPLOADS: u32 = 2;
/// Chunks of one large file that wait for the store.
const CHUNKS: usize = 16;

/// What is wanted of a client's folder.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub include_patterns: &'a [String],
    pub exclude_patterns: &'a [String],
    pub follow_paths: &'a [String],
}

/// The client's files as a tree, and how many bytes of content it sent for it.
pub async fn receive(
    session: &Session,
    store: &Store,
    lease: &str,
    wanted: &Wanted<'_>,
    known: Known,
) -> Outcome<(Tree, u64)> {
    session.must_serve(METHOD)?;
    // More than a receiver may ask for at once, so that asking never waits for what the client sends.
    let limits = Limits::default();
    let (to_client, requests) = mpsc::channel(limits.open_files + limits.open_large + 2);
    let mut request = tonic::Request::new(ReceiverStream::new(requests));
    *request.metadata_mut() = metadata_of(wanted)?;
    let mut client = FileSyncClient::with_origin(session.connection.clone(), Connection::origin());
    let mut packets = client.diff_copy(request).await.map_err(|status| refused(&status))?.into_inner();
    let mut receiver = Receiver::new(known, limits);
    let mut uploads = Uploads::new(store.clone(), lease.to_owned());
    let mut thanked = false;
    while let Some(packet) = packets.message().await.map_err(|status| refused(&status))? {
        match packet.r#type() {
            PacketType::PacketStat => receiver.stat(packet.stat).map_err(hostile)?,
            PacketType::PacketData => {
                if let Some(output) = receiver.data(packet.id, packet.data).map_err(hostile)? {
                    uploads.take(output).await?;
                }
            }
            PacketType::PacketErr => return Err(Failure::invalid(String::from_utf8_lossy(&packet.data))),
            PacketType::PacketFin => break,
            PacketType::PacketReq => return Err(Failure::invalid("the client asks for a file of its own")),
        }
        while let Some(id) = receiver.next_request() {
            send(&to_client, PacketType::PacketReq, id).await?;
        }
        if receiver.is_complete() && !std::mem::replace(&mut thanked, true) {
            send(&to_client, PacketType::PacketFin, 0).await?;
        }
    }
    if let Some(output) = receiver.flush() {
        uploads.take(output).await?;
    }
    uploads.finish().await?;
    let transferred_bytes = receiver.transferred_bytes();
    Ok((receiver.finish().map_err(hostile)?, transferred_bytes))
}

async fn send(to_client: &mpsc::Sender<Packet>, what: PacketType, id: u32) -> Outcome<()> {
    let packet = Packet { r#type: what.into(), id, ..Packet::default() };
    let gone = |_| Failure::new(model::ErrorKind::Unavailable, "the client has gone");
    to_client.send(packet).await.map_err(gone)
}

fn hostile(error: contexts::Error) -> Failure {
    Failure::new(error.kind(), error.to_string())
}

/// Blobs on their way into the layer store.
struct Uploads {
    store: Store,
    lease: String,
    running: JoinSet<Outcome<()>>,
    room: std::sync::Arc<Semaphore>,
    large: HashMap<u32, Large>,
}

/// A large file that comes in parts.
struct Large {
    parts: mpsc::Sender<std::io::Result<Bytes>>,
    upload: tokio::task::JoinHandle<Outcome<Pack>>,
}

impl Uploads {
    fn new(store: Store, lease: String) -> Self {
        let room = std::sync::Arc::new(Semaphore::new(UPLOADS as usize));
        Self { store, lease, running: JoinSet::new(), room, large: HashMap::new() }
    }

    /// Waits while too much is on its way.
    async fn take(&mut self, output: Output) -> Outcome<()> {
        while let Some(done) = self.running.try_join_next() {
            joined(done)?;
        }
        match output {
            Output::Pack { digest: _, bytes } => {
                let (store, lease) = (self.store.clone(), self.lease.clone());
                let room = self.room.clone().acquire_owned().await.expect("never closed");
                self.running.spawn(async move {
                    store.put_bytes(&bytes, Some(&lease)).await?;
                    drop(room);
                    Ok(())
                });
            }
            Output::Part { id, bytes, whole: None } => {
                let large = self.large.entry(id).or_insert_with(|| begin(self.store.clone(), self.lease.clone()));
                if large.parts.send(Ok(bytes.into())).await.is_err() {
                    // The store refused it: its word is the upload's.
                    return self.end(id).await.map(drop);
                }
            }
            Output::Part { id, whole: Some(whole), .. } => {
                // One of which nothing came is empty, and no tree names it.
                if self.large.contains_key(&id) && self.end(id).await? != whole {
                    return Err(Failure::new(
                        model::ErrorKind::Corrupt,
                        "the layer store has other bytes than were sent",
                    ));
                }
            }
        }
        Ok(())
    }

    async fn end(&mut self, id: u32) -> Outcome<Pack> {
        let large = self.large.remove(&id).ok_or_else(|| Failure::invalid("an upload that did not begin"))?;
        drop(large.parts);
        joined(large.upload.await)
    }

    async fn finish(mut self) -> Outcome<()> {
        while let Some(done) = self.running.join_next().await {
            joined(done)?;
        }
        Ok(())
    }
}

impl Drop for Uploads {
    /// What did not come to its end is no blob: the store hears of a broken body.
    fn drop(&mut self) {
        for large in self.large.values() {
            large.upload.abort();
        }
    }
}

fn begin(store: Store, lease: String) -> Large {
    let (parts, body) = mpsc::channel(CHUNKS);
    let body = distribution::Body::wrap_stream(ReceiverStream::new(body));
    let upload = tokio::spawn(async move {
        let (digest, size) = store.upload(body, Some(&lease)).await?;
        Ok(Pack { digest, size })
    });
    Large { parts, upload }
}

fn joined<T>(done: Result<Outcome<T>, tokio::task::JoinError>) -> Outcome<T> {
    done.unwrap_or_else(|error| Err(Failure::new(model::ErrorKind::Internal, error.to_string())))
}

/// BuildKit's way to say what is wanted: values are in clear if they are ASCII, else escaped as in a query.
fn metadata_of(wanted: &Wanted) -> Outcome<MetadataMap> {
    let mut metadata = MetadataMap::new();
    let name = std::slice::from_ref(&wanted.name);
    append(&mut metadata, "dir-name", name)?;
    append(&mut metadata, "include-patterns", wanted.include_patterns)?;
    append(&mut metadata, "exclude-patterns", wanted.exclude_patterns)?;
    append(&mut metadata, "followpaths", wanted.follow_paths)?;
    Ok(metadata)
}

fn append<T: AsRef<str>>(metadata: &mut MetadataMap, key: &'static str, values: &[T]) -> Outcome<()> {
    // Letters beyond ASCII go as they are: Debian's docker 20.10 reads no escaped ones, later clients read both.
    let is_plain = |value: &T| value.as_ref().bytes().all(|byte| byte >= 0x20 && byte != 0x7f);
    let escaped = !values.iter().all(is_plain);
    for value in values {
        let value = match escaped {
            true => escape(value.as_ref()),
            false => value.as_ref().to_owned(),
        };
        let value: MetadataValue<_> = MetadataValue::try_from(value.as_bytes())
            .map_err(|_| Failure::invalid(format!("{key} {value:?} cannot be sent")))?;
        metadata.append(key, value);
    }
    if escaped {
        metadata.append(
            format!("{key}-encoded").parse::<tonic::metadata::MetadataKey<_>>().expect("a name"),
            MetadataValue::from_static("1"),
        );
    }
    Ok(())
}

/// Go's url.QueryEscape.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_sent_as_buildkit_sends_them() {
        let (include, exclude) = (["a b".to_owned(), "ü".to_owned()], ["a\n/*".to_owned(), "x y".to_owned()]);
        let wanted =
            Wanted { name: "context", include_patterns: &include, exclude_patterns: &exclude, follow_paths: &[] };
        let metadata = metadata_of(&wanted).expect("made");
        let text = |value: &MetadataValue<_>| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let all = |key: &str| metadata.get_all(key).iter().map(text).collect::<Vec<_>>();
        assert_eq!(all("dir-name"), ["context"]);
        assert_eq!(all("include-patterns"), ["a b", "ü"]);
        assert_eq!(all("include-patterns-encoded"), Vec::<String>::new());
        assert_eq!(all("exclude-patterns"), ["a%0A%2F%2A", "x+y"]);
        assert_eq!(all("exclude-patterns-encoded"), ["1"]);
        assert_eq!(all("followpaths"), Vec::<String>::new());
    }
}
