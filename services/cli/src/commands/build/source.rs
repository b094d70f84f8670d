//! Where a build's context comes from, and how it is sent.

use std::io::{Cursor, Read, Write, stdin};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::Build;
use crate::context::Context;
use crate::engine::{Body, empty, full, streamed};
use crate::failure::{Failure, Outcome};
use crate::{output, regular, units};

/// What is sent.
pub struct Source {
    pub body: Body,
    pub remote: Option<String>,
    pub dockerfile: String,
    /// The context's producer, with its size once it is done.
    pub producer: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

/// The largest Dockerfile that is read from stdin.
const DOCKERFILE_MAX_BYTES: u64 = 16 << 20;

impl Build {
    pub(super) fn source(&self) -> Outcome<Source> {
        if self.context == "-" {
            return self.stdin_source();
        }
        if !Path::new(&self.context).is_dir() && is_remote(&self.context) {
            let dockerfile = self.file.clone().unwrap_or_default();
            return Ok(Source { body: empty(), remote: Some(self.context.clone()), dockerfile, producer: None });
        }
        self.folder_source()
    }

    /// A tar goes through as it is; anything else is a Dockerfile.
    fn stdin_source(&self) -> Outcome<Source> {
        let head = stdin_head()?;
        if is_archive(&head) {
            let whole = rest_of_stdin(head);
            let mut tally = Tally { bytes: 0, quiet: self.quiet };
            let whole = futures::StreamExt::inspect(whole, move |chunk: &std::io::Result<Bytes>| {
                tally.add(chunk.as_ref().map_or(0, Bytes::len));
            });
            let dockerfile = self.file.clone().unwrap_or_default();
            return Ok(Source { body: streamed(whole), remote: None, dockerfile, producer: None });
        }
        let dockerfile = read_dockerfile(Cursor::new(head).chain(stdin().lock()))?;
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_size(dockerfile.len() as u64);
        tar.append_data(&mut header, "Dockerfile", dockerfile.as_slice())?;
        let bytes = tar.into_inner()?;
        self.announce(bytes.len() as u64);
        Ok(Source { body: full(bytes.into()), remote: None, dockerfile: String::new(), producer: None })
    }

    fn folder_source(&self) -> Outcome<Source> {
        let words = |e: &std::io::Error| crate::commands::os_words(e);
        let failed = |e: std::io::Error| {
            Failure::new(format!("unable to prepare context: path {:?} not found", self.context)).hint(words(&e))
        };
        let root = std::fs::canonicalize(&self.context).map_err(failed)?;
        if !root.is_dir() {
            return Err(Failure::new(format!(
                "unable to prepare context: context must be a directory: {}",
                root.display()
            )));
        }
        let mut extra = Vec::new();
        let outside = |content: Vec<u8>, extra: &mut Vec<(String, Vec<u8>)>| {
            let name = format!(".dockerfile.{:016x}", rand::random::<u64>());
            extra.push((name.clone(), content));
            name
        };
        let dockerfile = match self.file.as_deref() {
            Some("-") => outside(read_dockerfile(stdin().lock())?, &mut extra),
            given => {
                let path = given.map_or_else(|| root.join("Dockerfile"), PathBuf::from);
                let path = std::path::absolute(&path)?;
                let missing = |e: std::io::Error| {
                    Failure::new(format!(
                        "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: {}",
                        path.display(),
                        words(&e)
                    ))
                };
                let real = std::fs::canonicalize(&path).map_err(missing)?;
                match real.strip_prefix(&root) {
                    Ok(inside) => inside.to_string_lossy().into_owned(),
                    Err(_) => outside(named_dockerfile(&real)?, &mut extra),
                }
            }
        };
        let context = Context::open(&root, &dockerfile)?;
        let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(16);
        let sent = Arc::new(AtomicU64::new(0));
        let total = sent.clone();
        let compress = self.compress;
        let quiet = self.quiet;
        let producer = tokio::task::spawn_blocking(move || {
            let pipe = Pipe { sender: sender.clone(), sent, buffer: Vec::with_capacity(PIPE_BYTES) };
            let written = if compress {
                let gzip = flate2::write::GzEncoder::new(pipe, flate2::Compression::fast());
                context.write(gzip, &extra)
            } else {
                context.write(pipe, &extra)
            };
            match &written {
                Ok(()) if !quiet => announce(total.load(Ordering::Relaxed)),
                Ok(()) => {}
                Err(e) => drop(sender.blocking_send(Err(std::io::Error::new(e.kind(), e.to_string())))),
            }
            written
        });
        let body = streamed(futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        }));
        Ok(Source { body, remote: None, dockerfile, producer: Some(producer) })
    }

    fn announce(&self, bytes: u64) {
        if !self.quiet {
            announce(bytes);
        }
    }
}

fn announce(bytes: u64) {
    output::write(format!("Sending build context to Docker daemon  {}\r\r\n", units::size(bytes as f64)).as_bytes());
}

/// Counts a context that only passes through, and says so at its end.
struct Tally {
    bytes: u64,
    quiet: bool,
}

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.quiet {
            announce(self.bytes);
        }
    }
}

/// The first bytes of stdin, which tell an archive from a Dockerfile.
pub(super) fn stdin_head() -> Outcome<Vec<u8>> {
    let mut head = Vec::new();
    stdin().lock().take(512).read_to_end(&mut head)?;
    Ok(head)
}

/// A tar, plain or compressed.
pub(super) fn is_archive(head: &[u8]) -> bool {
    let plain = head.get(257..262) == Some(b"ustar".as_slice());
    let packed = [&[0x1f, 0x8b][..], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z'], &[0x28, 0xb5, 0x2f, 0xfd]];
    plain || packed.iter().any(|magic| head.starts_with(magic))
}

/// All of stdin, of which the head has been read.
pub(super) fn rest_of_stdin(head: Vec<u8>) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + Sync {
    let rest = tokio_util::io::ReaderStream::new(tokio::io::stdin());
    futures::StreamExt::chain(futures::stream::iter([Ok(Bytes::from(head))]), rest)
}

/// One that the person names, which may be a pipe.
pub(super) fn named_dockerfile(path: &Path) -> Outcome<Vec<u8>> {
    let told = |e: std::io::Error| {
        let why = crate::commands::os_words(&e);
        Failure::new(format!("ERROR: failed to read dockerfile: open {}: {why}", path.display()))
    };
    within_limit(regular::read(path, DOCKERFILE_MAX_BYTES).map_err(told)?)
}

pub(super) fn read_dockerfile(from: impl Read) -> Outcome<Vec<u8>> {
    let mut content = Vec::new();
    from.take(DOCKERFILE_MAX_BYTES + 1).read_to_end(&mut content)?;
    within_limit(content)
}

fn within_limit(content: Vec<u8>) -> Outcome<Vec<u8>> {
    if content.len() as u64 > DOCKERFILE_MAX_BYTES {
        return Err(Failure::new("the Dockerfile is larger than 16 MiB"));
    }
    Ok(content)
}

pub(super) fn is_remote(context: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://", "github.com/"].iter().any(|p| context.starts_with(p))
}

const PIPE_BYTES: usize = 128 * 1024;

/// From the thread that reads files to the request's body, bounded.
struct Pipe {
    sender: tokio::sync::mpsc::Sender<std::io::Result<Bytes>>,
    sent: Arc<AtomicU64>,
    buffer: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIPE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIPE_BYTES));
        self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let gone =
            |_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the daemon stopped reading the build context");
        self.sender.blocking_send(Ok(chunk.into())).map_err(gone)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
