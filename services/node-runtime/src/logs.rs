use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bus::Error;
use bytes::Bytes;
use proto::{ContainerLogs, ContainerState, Empty};
use runtime::wire::frame_header;
use streams::Duplex;

use crate::containers::Container;
use crate::node::Node;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(50);

#[derive(serde::Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
}

impl Line {
    fn frame(&self, tty: bool, timestamps: bool) -> Bytes {
        let text = if timestamps { format!("{} {}", self.time, self.log) } else { self.log.clone() };
        let mut bytes = Vec::with_capacity(text.len() + 8);
        if !tty {
            bytes.extend_from_slice(&frame_header(if self.stream == "stderr" { 2 } else { 1 }, text.len() as u32));
        }
        bytes.extend_from_slice(text.as_bytes());
        bytes.into()
    }

    fn time_ns(&self) -> i64 {
        self.time.parse::<jiff::Timestamp>().map_or(0, |t| i64::try_from(t.as_nanosecond()).unwrap_or(i64::MAX))
    }
}

/// A place in the log: an open file and how far it was read. What is open can be read to its end when the container and
/// its folder are gone.
#[derive(Default)]
struct Place {
    file: Option<File>,
    inode: u64,
    offset: u64,
}

impl Place {
    fn begin(path: &Path) -> Self {
        let file = File::open(path).ok();
        let inode = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.ino());
        Self { file, inode, offset: 0 }
    }

    /// The complete lines that have come to this file.
    fn rest(&mut self) -> Vec<Line> {
        let Some(file) = &mut self.file else { return Vec::new() };
        // A file shorter than what was read was emptied.
        if file.metadata().is_ok_and(|meta| meta.len() < self.offset) {
            self.offset = 0;
        }
        if file.seek(SeekFrom::Start(self.offset)).is_err() {
            return Vec::new();
        }
        let (mut lines, mut reader, mut text) = (Vec::new(), BufReader::new(file), Vec::new());
        while let Ok(n) = reader.read_until(b'\n', &mut text) {
            if n == 0 || !text.ends_with(b"\n") {
                break;
            }
            self.offset += n as u64;
            lines.extend(serde_json::from_slice::<Line>(&text));
            text.clear();
        }
        lines
    }

    /// What has come since, over rotations too.
    fn since(&mut self, path: &Path) -> Vec<Line> {
        let inode = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.ino());
        let mut lines = self.rest();
        let now = inode(path);
        if now == 0 || now == self.inode {
            return lines;
        }
        // What came between the two looks.
        lines.extend(self.rest());
        let older: Vec<_> = numbered(path).collect();
        if let Some(at) = older.iter().position(|path| inode(path) == self.inode) {
            for path in older[..at].iter().rev() {
                lines.extend(Self::begin(path).rest());
            }
        }
        *self = Self::begin(path);
        lines.extend(self.rest());
        lines
    }
}

/// Rotated files, the newest first.
fn numbered(path: &Path) -> impl Iterator<Item = PathBuf> {
    (1..100).map(|n| path.with_extension(format!("log.{n}"))).take_while(|path| path.exists())
}

/// The whole log, and its end to go on from.
fn whole(path: &Path) -> (Vec<Line>, Place) {
    let mut older: Vec<_> = numbered(path).collect();
    older.reverse();
    let mut lines: Vec<Line> = older.iter().flat_map(|path| Place::begin(path).rest()).collect();
    let mut place = Place::begin(path);
    lines.extend(place.rest());
    (lines, place)
}

fn wanted(line: &Line, stdout: bool, stderr: bool) -> bool {
    if line.stream == "stderr" { stderr } else { stdout }
}

/// The whole log.
pub fn all(container: &Container, stdout: bool, stderr: bool) -> Vec<Bytes> {
    let (path, tty) = (container.dir.join("container.log"), container.spec().tty);
    whole(&path).0.iter().filter(|line| wanted(line, stdout, stderr)).map(|line| line.frame(tty, false)).collect()
}

impl Node {
    pub async fn logs(&self, request: ContainerLogs) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        let (path, tty) = (container.dir.join("container.log"), container.spec().tty);
        // Before the answer: a client may remove the container as soon as it has that.
        let (mut lines, mut place) = whole(&path);
        let Duplex { mut reader, mut writer } = crate::attach::dial(request.ticket.clone()).await?;
        // Its end is that of what the client sends, which is nothing; broken off is a client that went.
        let mut left = tokio::spawn(async move {
            while let Ok(Some(_)) = reader.next().await {}
            if reader.next().await.is_ok() {
                std::future::pending::<()>().await;
            }
        });
        tokio::spawn(async move {
            let keep = |line: &Line| {
                wanted(line, request.stdout, request.stderr)
                    && (request.since_ns == 0 || line.time_ns() >= request.since_ns)
                    && (request.until_ns == 0 || line.time_ns() <= request.until_ns)
            };
            lines.retain(keep);
            if let Ok(tail) = usize::try_from(request.tail) {
                lines.drain(..lines.len().saturating_sub(tail));
            }
            loop {
                for line in lines.drain(..) {
                    if writer.send(line.frame(tty, request.timestamps)).await.is_err() {
                        left.abort();
                        return;
                    }
                }
                let over = request.until_ns != 0 && runtime::wire::now_ns() > request.until_ns;
                if !request.follow || over {
                    break;
                }
                // Looked at before the read: what was written before the end is not missed.
                let running = match container.status().state() {
                    ContainerState::Created => container.shim().is_some(),
                    ContainerState::Running | ContainerState::Paused | ContainerState::Restarting => true,
                    _ => false,
                };
                lines = place.since(&path);
                lines.retain(keep);
                if lines.is_empty() && !running {
                    break;
                }
                if lines.is_empty() {
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        // The end is not waited out.
                        _ = container.stands(None), if container.is_running() => {}
                        _ = &mut left => return,
                    }
                }
            }
            let _ = writer.finish().await;
            left.abort();
        });
        Ok(Empty {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_misses_nothing_over_two_rotations() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("container.log");
        let add = |text: &str| {
            let line = format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-01T00:00:00Z\"}}\n");
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).expect("the log");
            std::io::Write::write_all(&mut file, line.as_bytes()).expect("written");
        };
        let rotate = || {
            let _ = std::fs::rename(path.with_extension("log.1"), path.with_extension("log.2"));
            std::fs::rename(&path, path.with_extension("log.1")).expect("rotated");
        };
        let words = |lines: Vec<Line>| lines.into_iter().map(|line| line.log).collect::<String>();
        add("a");
        let (lines, mut place) = whole(&path);
        assert_eq!(words(lines), "a\n");
        add("b");
        rotate();
        add("c");
        rotate();
        add("d");
        let lines = place.since(&path);
        assert_eq!(words(lines), "b\nc\nd\n");
        assert_eq!(words(place.since(&path)), "");
        assert_eq!(words(whole(&path).0), "a\nb\nc\nd\n");
        add("e");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(words(place.since(&path)), "e\n", "what is open is read to its end");
    }
}
