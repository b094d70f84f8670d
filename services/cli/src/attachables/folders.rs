//! The sending side of BuildKit's `FileSync/DiffCopy` (fsutil's protocol): every file's Stat, then the content of those
//! that the daemon asks for.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSync;
use contexts::{Content, Entry, Kind, SHA256_XATTR, stat_of};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::digests::Digests;
use super::follow::follow;
use super::walk::{Found, Selection, walk};
use crate::regular;

/// Bursts of packets that wait for the daemon.
const BURSTS: usize = 4;
/// A burst is sent when it holds so many packets, or so many bytes of content.
const BURST_PACKETS: usize = 256;
const BURST_BYTES: usize = 256 << 10;
const CHUNK_BYTES: usize = 64 << 10;

/// A folder of this machine.
#[derive(Debug, Clone)]
pub struct Folder {
    pub root: PathBuf,
    /// Whether digests are remembered between builds: not of a folder that is made for one.
    pub is_lasting: bool,
}

pub struct Folders(BTreeMap<String, Folder>);

/// Packets go in bursts: each wakes the connection's task, which writes what is there at once.
type Packets = mpsc::Sender<Vec<Packet>>;

impl Folders {
    pub fn new(folders: BTreeMap<String, Folder>) -> Self {
        Self(folders)
    }
}

#[tonic::async_trait]
impl FileSync for Folders {
    type DiffCopyStream = BoxStream<'static, Result<Packet, Status>>;
    type TarStreamStream = BoxStream<'static, Result<Packet, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let asked = Asked::read(request.metadata());
        let folder = self.0.get(&asked.name).cloned();
        let folder = folder.ok_or_else(|| Status::not_found(format!("no access allowed to dir {:?}", asked.name)))?;
        let (packets, sent) = mpsc::channel(BURSTS);
        let transfer = Transfer { packets, files: Arc::default() };
        let listing = transfer.clone();
        tokio::task::spawn_blocking(move || listing.list(folder, &asked));
        tokio::spawn(transfer.serve(request.into_inner()));
        let sent =
            ReceiverStream::new(sent).flat_map(|burst: Vec<Packet>| futures::stream::iter(burst.into_iter().map(Ok)));
        Ok(Response::new(sent.boxed()))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("TarStream"))
    }
}

/// What of which folder.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    name: String,
    include: Vec<String>,
    exclude: Vec<String>,
    follow: Vec<String>,
}

impl Asked {
    fn read(metadata: &MetadataMap) -> Self {
        let list = |key: &str| -> Vec<String> {
            let escaped = metadata.get(format!("{key}-encoded")).is_some_and(|on| on == "1");
            let texts = metadata.get_all(key).iter().filter_map(|value| value.to_str().ok());
            texts.map(|text| if escaped { unescape(text) } else { text.to_owned() }).collect()
        };
        Self {
            name: list("dir-name").into_iter().next().unwrap_or_default(),
            include: list("include-patterns"),
            exclude: list("exclude-patterns"),
            follow: list("followpaths"),
        }
    }
}

/// Go's url.QueryUnescape.
fn unescape(text: &str) -> String {
    let pair = format!("k={}", text.replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// One answer to the daemon.
#[derive(Clone)]
struct Transfer {
    packets: Packets,
    /// By id, which counts Stats; none for what has no content.
    files: Arc<Mutex<Vec<Option<PathBuf>>>>,
}

fn packet(what: PacketType, id: u32) -> Packet {
    Packet { r#type: what.into(), id, ..Packet::default() }
}

impl Transfer {
    fn send(&self, burst: Vec<Packet>) -> io::Result<()> {
        self.packets.blocking_send(burst).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The daemon is told why it gets no more.
    fn fail(&self, error: &io::Error) {
        let told = Packet { data: error.to_string().into_bytes(), ..packet(PacketType::PacketErr, 0) };
        let _ = self.send(vec![told]);
    }

    fn list(self, folder: Folder, asked: &Asked) {
        let mut include = asked.include.clone();
        let followed = follow(&folder.root, &asked.follow);
        if !asked.follow.is_empty() && followed.is_empty() && include.is_empty() {
            // Nothing is there of what is wanted.
            return drop(self.send(vec![packet(PacketType::PacketStat, 0)]));
        }
        include.extend(followed);
        let selection = Selection::new(&include, &asked.exclude);
        let digests = folder.is_lasting.then(|| Digests::open(&folder.root, !include.is_empty()));
        let mut listing = Listing { transfer: &self, digests, links: HashMap::new(), waiting: Vec::new() };
        let walked = walk(&folder.root, &selection, &mut |found| listing.add(found)).and_then(|()| listing.end());
        if let Err(error) = walked {
            self.fail(&error);
        }
    }

    async fn serve(self, mut requests: Streaming<Packet>) {
        // The daemon asks for each file once, so there are at most as many requests as files.
        let (asked, ids) = std::sync::mpsc::channel();
        let sending = self.clone();
        let sender = tokio::task::spawn_blocking(move || {
            if let Err(error) = sending.contents(&ids) {
                sending.fail(&error);
            }
        });
        while let Ok(Some(request)) = requests.message().await {
            match request.r#type() {
                PacketType::PacketReq if asked.send(request.id).is_ok() => {}
                PacketType::PacketFin => {
                    drop(asked);
                    let _ = sender.await;
                    let _ = self.packets.send(vec![packet(PacketType::PacketFin, 0)]).await;
                    return;
                }
                // The daemon's own error is the build's.
                _ => return,
            }
        }
    }

    /// Sends the content of each file that is asked for; what is ready goes together while more is asked for.
    fn contents(&self, asked: &std::sync::mpsc::Receiver<u32>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(id) = asked.recv() {
            let mut burst = Vec::new();
            for id in std::iter::once(id).chain(asked.try_iter()) {
                self.content(id, &mut buffer, &mut burst)?;
            }
            self.send(burst)?;
        }
        Ok(())
    }

    fn content(&self, id: u32, buffer: &mut [u8], burst: &mut Vec<Packet>) -> io::Result<()> {
        let file = self.files.lock().expect("no holder panics").get(id as usize).cloned().flatten();
        let file = file.ok_or_else(|| io::Error::other(format!("invalid file id {id}")))?;
        let mut content = regular::open_itself(&file)
            .map_err(|e| io::Error::other(format!("open {}: {}", file.display(), crate::commands::os_words(&e))))?;
        loop {
            let data = match content.read(buffer)? {
                0 => Vec::new(),
                count => buffer[..count].to_vec(),
            };
            let is_end = data.is_empty();
            burst.push(Packet { data, ..packet(PacketType::PacketData, id) });
            if burst.iter().map(|packet| packet.data.len()).sum::<usize>() >= BURST_BYTES
                || burst.len() >= BURST_PACKETS
            {
                self.send(std::mem::take(burst))?;
            }
            if is_end {
                return Ok(());
            }
        }
    }
}

/// Stats on their way to the daemon.
struct Listing<'a> {
    transfer: &'a Transfer,
    digests: Option<Digests>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), String>,
    waiting: Vec<(Found, Stat)>,
}

impl Listing<'_> {
    fn add(&mut self, found: Found) -> io::Result<()> {
        let Some(stat) = stat(&found, &mut self.links)? else { return Ok(()) };
        self.waiting.push((found, stat));
        if self.waiting.len() >= BURST_PACKETS { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> io::Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let has_content = |(found, stat): &(Found, Stat)| found.metadata.is_file() && stat.linkname.is_empty();
        if let Some(digests) = &mut self.digests {
            let files: Vec<&Found> = waiting.iter().filter(|each| has_content(each)).map(|(found, _)| found).collect();
            let digests = digests.of(&files)?;
            for ((_, stat), digest) in waiting.iter_mut().filter(|each| has_content(each)).zip(digests) {
                stat.xattrs.insert(SHA256_XATTR.to_owned(), digest.to_vec());
            }
        }
        let contents = waiting.iter().map(|each| has_content(each).then(|| each.0.full.clone()));
        self.transfer.files.lock().expect("no holder panics").extend(contents);
        let packets =
            waiting.into_iter().map(|(_, stat)| Packet { stat: Some(stat), ..packet(PacketType::PacketStat, 0) });
        self.transfer.send(packets.collect())
    }

    fn end(mut self) -> io::Result<()> {
        self.send()?;
        self.transfer.send(vec![packet(PacketType::PacketStat, 0)])?;
        self.digests.into_iter().for_each(Digests::save);
        Ok(())
    }
}

/// What the daemon is told of a file: it is root's, as in every build. None for a socket.
fn stat(found: &Found, links: &mut HashMap<(u64, u64), String>) -> io::Result<Option<Stat>> {
    let Found { path, full, metadata } = found;
    let kind = metadata.file_type();
    let device = (nix::libc::major(metadata.rdev()), nix::libc::minor(metadata.rdev()));
    let kind = if kind.is_dir() {
        Kind::Folder
    } else if kind.is_symlink() {
        let target = std::fs::read_link(full)?;
        let target = target.into_os_string().into_string();
        Kind::Symlink { target: target.map_err(|_| io::Error::other(format!("link {path} names no text")))? }
    } else if kind.is_file() {
        let first = match metadata.nlink() {
            0 | 1 => None,
            _ => Some(links.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.clone()).clone()),
        };
        let hard_link = first.filter(|first| first != path);
        // A Stat has no place for the digest.
        let content = Content { sha256: [0; 32], size: metadata.len(), pack: None, offset: 0 };
        Kind::File { content, hard_link }
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_block_device() {
        Kind::Block { major: device.0, minor: device.1 }
    } else if kind.is_char_device() {
        Kind::Character { major: device.0, minor: device.1 }
    } else {
        return Ok(None);
    };
    let mtime_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    let mode = metadata.mode() & 0o7777;
    let entry = Entry { path: path.clone(), mode, uid: 0, gid: 0, mtime_ns, xattrs: Vec::new(), kind };
    Ok(Some(stat_of(&entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let mut metadata = MetadataMap::new();
        metadata.insert("dir-name", "context".parse().expect("a value"));
        metadata.append("exclude-patterns", "%C3%BC%2F%2A".parse().expect("a value"));
        metadata.append("exclude-patterns", "x+y".parse().expect("a value"));
        metadata.insert("exclude-patterns-encoded", "1".parse().expect("a value"));
        metadata.append("followpaths", "a b".parse().expect("a value"));
        let asked = Asked::read(&metadata);
        assert_eq!((asked.name.as_str(), asked.follow.as_slice()), ("context", &["a b".to_owned()][..]));
        assert_eq!(asked.exclude, ["ü/*", "x y"]);
    }
}
