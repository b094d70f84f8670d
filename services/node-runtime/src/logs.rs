use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use bus::Error;
use bytes::Bytes;
use proto::{ContainerLogs, Empty};
use runtime::wire::frame_header;

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

/// Complete lines from `offset`, and where the next one begins.
fn read(path: &Path, offset: u64) -> (Vec<Line>, u64) {
    let Ok(mut file) = std::fs::File::open(path) else { return (Vec::new(), 0) };
    // A file shorter than what was read is a new one.
    let start = if file.metadata().is_ok_and(|meta| meta.len() < offset) { 0 } else { offset };
    if file.seek(SeekFrom::Start(start)).is_err() {
        return (Vec::new(), start);
    }
    let (mut lines, mut at, mut reader, mut text) = (Vec::new(), start, BufReader::new(file), Vec::new());
    while let Ok(n) = reader.read_until(b'\n', &mut text) {
        if n == 0 || !text.ends_with(b"\n") {
            break;
        }
        at += n as u64;
        lines.extend(serde_json::from_slice::<Line>(&text));
        text.clear();
    }
    (lines, at)
}

fn rotated(path: &Path) -> Vec<Line> {
    let older = (1..100).map(|n| path.with_extension(format!("log.{n}"))).take_while(|path| path.exists());
    let mut older: Vec<_> = older.collect();
    older.reverse();
    older.iter().flat_map(|path| read(path, 0).0).collect()
}

fn wanted(line: &Line, stdout: bool, stderr: bool) -> bool {
    if line.stream == "stderr" { stderr } else { stdout }
}

/// The whole log.
pub fn all(container: &Container, stdout: bool, stderr: bool) -> Vec<Bytes> {
    let (path, tty) = (container.dir.join("container.log"), container.spec().tty);
    let mut lines = rotated(&path);
    lines.extend(read(&path, 0).0);
    lines.iter().filter(|line| wanted(line, stdout, stderr)).map(|line| line.frame(tty, false)).collect()
}

impl Node {
    pub async fn logs(&self, request: ContainerLogs) -> Result<Empty, Error> {
        let container = self.container(&request.id)?;
        let mut duplex = crate::attach::dial(request.ticket.clone()).await?;
        tokio::spawn(async move {
            let (path, tty) = (container.dir.join("container.log"), container.spec().tty);
            let keep = |line: &Line| {
                wanted(line, request.stdout, request.stderr)
                    && (request.since_ns == 0 || line.time_ns() >= request.since_ns)
                    && (request.until_ns == 0 || line.time_ns() <= request.until_ns)
            };
            let mut lines = rotated(&path);
            let (newest, mut offset) = read(&path, 0);
            lines.extend(newest);
            lines.retain(keep);
            if let Ok(tail) = usize::try_from(request.tail) {
                lines.drain(..lines.len().saturating_sub(tail));
            }
            loop {
                for line in lines.drain(..) {
                    if duplex.writer.send(line.frame(tty, request.timestamps)).await.is_err() {
                        return;
                    }
                }
                if !request.follow {
                    break;
                }
                // Looked at before the read: what was written before the end is not missed.
                let running = container.is_running() || container.shim().is_some();
                (lines, offset) = read(&path, offset);
                lines.retain(keep);
                if lines.is_empty() && !running {
                    break;
                }
                if lines.is_empty() {
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => {}
                        _ = duplex.reader.next() => return,
                    }
                }
            }
            let _ = duplex.writer.finish().await;
        });
        Ok(Empty {})
    }
}
