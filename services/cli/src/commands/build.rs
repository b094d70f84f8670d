//! `build`: the classic API (`POST /build`, version 1).

use std::io::{Cursor, Read, Write, stdin};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::create::values;
use crate::engine::{Body, Engine, empty, full, streamed};
use crate::failure::{Failure, Outcome};
use crate::progress::{self, Sink};
use crate::{output, units};

#[derive(Args, Debug)]
pub struct Build {
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long)]
    add_host: Vec<String>,
    /// Set build-time variables
    #[arg(long)]
    build_arg: Vec<String>,
    /// Images to consider as cache sources
    #[arg(long, value_delimiter = ',')]
    cache_from: Vec<String>,
    /// Set the parent cgroup for the "RUN" instructions during build
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Compress the build context using gzip
    #[arg(long)]
    compress: bool,
    /// Limit the CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Limit the CPU CFS (Completely Fair Scheduler) quota
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// Number of CPUs
    #[arg(long)]
    cpus: Option<f64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long)]
    cpu_shares: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Skip image verification
    #[arg(long)]
    disable_content_trust: bool,
    /// Name of the Dockerfile (Default is "PATH/Dockerfile")
    #[arg(short, long)]
    file: Option<String>,
    /// Always remove intermediate containers
    #[arg(long)]
    force_rm: bool,
    /// Write the image ID to the file
    #[arg(long)]
    iidfile: Option<PathBuf>,
    /// Set metadata for an image
    #[arg(long)]
    label: Vec<String>,
    /// Memory limit
    #[arg(short, long)]
    memory: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Set the networking mode for the RUN instructions during build
    #[arg(long, default_value = "default")]
    network: String,
    /// Do not use cache when building the image
    #[arg(long)]
    no_cache: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pull: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short, long)]
    quiet: bool,
    /// Remove intermediate containers after a successful build
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: bool,
    /// Security options
    #[arg(long)]
    security_opt: Vec<String>,
    /// Size of "/dev/shm"
    #[arg(long)]
    shm_size: Option<String>,
    /// Squash newly built layers into a single new layer
    #[arg(long)]
    squash: bool,
    /// Name and optionally a tag in the "name:tag" format
    #[arg(short, long)]
    tag: Vec<String>,
    /// Set the target build stage to build.
    #[arg(long)]
    target: Option<String>,
    /// Ulimit options
    #[arg(long)]
    ulimit: Vec<String>,
    #[arg(value_name = "PATH | URL | -")]
    context: String,
}

/// What is sent.
struct Source {
    body: Body,
    remote: Option<String>,
    dockerfile: String,
    /// The context's producer, with its size once it is done.
    producer: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

/// The largest Dockerfile that is read from stdin.
const DOCKERFILE_MAX_BYTES: u64 = 16 << 20;

impl Build {
    pub async fn run(self, engine: &Engine) -> Outcome {
        if self.context == "-" && self.file.as_deref() == Some("-") {
            return Err(Failure::new("invalid argument: can't use stdin for both build context and dockerfile"));
        }
        if let Some(path) = &self.iidfile {
            let _ = std::fs::remove_file(path);
        }
        let source = self.source()?;
        let call = self.query(engine, &source)?;
        let call =
            call.header("content-type", "application/x-tar").header("x-registry-config", "e30=").body(source.body);
        let response = match call.send().await {
            Ok(response) => response,
            Err(failure) => {
                // The reason may be that the context could not be read.
                if let Some(Ok(Err(e))) =
                    futures::future::OptionFuture::from(source.producer.filter(|p| p.is_finished())).await
                {
                    return Err(Failure::new(format!("error reading the build context: {e}")));
                }
                return Err(failure);
            }
        };
        let mut id = None;
        let sink = if self.quiet { Sink::Nowhere } else { Sink::Stdout };
        let said = progress::show(response.into_body(), sink, |aux| {
            if let Some(found) = aux["ID"].as_str() {
                id = Some(found.to_owned());
            }
        })
        .await?;
        if self.quiet {
            // A quiet daemon says the id only, as text or beside it.
            let text = Some(said.trim().to_owned()).filter(|t| t.starts_with("sha256:"));
            id = text.or(id);
            id.iter().for_each(output::line);
        }
        if let Some(path) = &self.iidfile {
            let id = id.ok_or_else(|| Failure::new("server did not provide an image ID. Cannot write to file"))?;
            std::fs::write(path, id)?;
        }
        Ok(())
    }

    fn query<'a>(&self, engine: &'a Engine, source: &Source) -> Outcome<crate::engine::Call<'a>> {
        let bytes = |v: &Option<String>| match v.as_deref() {
            None => Ok(0),
            Some("-1") => Ok(-1),
            Some(text) => units::parse_bytes(text).map_err(Failure::new),
        };
        let args: Value = self
            .build_arg
            .iter()
            .map(|text| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Value::from(value)),
                None => (text.clone(), std::env::var(text).map_or(Value::Null, Value::from)),
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        let mut call = engine.post("/build").query("version", 1);
        for tag in &self.tag {
            call = call.query("t", tag);
        }
        for host in values::extra_hosts(&self.add_host)? {
            call = call.query("extrahosts", host);
        }
        for option in &self.security_opt {
            call = call.query("securityopt", option);
        }
        let quota = self.cpus.map(|c| (c * 100_000.0) as i64).or(self.cpu_quota).unwrap_or(0);
        let period = self.cpus.map(|_| 100_000).or(self.cpu_period).unwrap_or(0);
        Ok(call
            .maybe("remote", source.remote.as_deref())
            .flag("q", self.quiet)
            .flag("nocache", self.no_cache)
            .query("rm", if self.rm { "1" } else { "0" })
            .flag("forcerm", self.force_rm)
            .flag("pull", self.pull)
            .flag("squash", self.squash)
            .query("cpusetcpus", self.cpuset_cpus.as_deref().unwrap_or_default())
            .query("cpusetmems", self.cpuset_mems.as_deref().unwrap_or_default())
            .query("networkmode", &self.network)
            .query("cpushares", self.cpu_shares.unwrap_or(0))
            .query("cpuquota", quota)
            .query("cpuperiod", period)
            .query("memory", bytes(&self.memory)?)
            .query("memswap", bytes(&self.memory_swap)?)
            .query("cgroupparent", self.cgroup_parent.as_deref().unwrap_or_default())
            .query("shmsize", bytes(&self.shm_size)?)
            .query("dockerfile", &source.dockerfile)
            .query("target", self.target.as_deref().unwrap_or_default())
            .query("ulimits", values::ulimits(&self.ulimit)?)
            .query("buildargs", args)
            .query("labels", values::pairs(&self.label))
            .query("cachefrom", json!(self.cache_from))
            .maybe("platform", self.platform.as_deref()))
    }

    fn source(&self) -> Outcome<Source> {
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
        let mut head = Vec::new();
        stdin().lock().take(512).read_to_end(&mut head)?;
        let plain = head.get(257..262) == Some(b"ustar".as_slice());
        let packed = [&[0x1f, 0x8b][..], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z'], &[0x28, 0xb5, 0x2f, 0xfd]];
        if plain || packed.iter().any(|magic| head.starts_with(magic)) {
            let rest = tokio_util::io::ReaderStream::new(tokio::io::stdin());
            let whole = futures::StreamExt::chain(futures::stream::iter([Ok(Bytes::from(head))]), rest);
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
        let words = |e: &std::io::Error| super::os_words(e);
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
                    Err(_) => outside(read_dockerfile(std::fs::File::open(&real)?)?, &mut extra),
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

fn read_dockerfile(from: impl Read) -> Outcome<Vec<u8>> {
    let mut content = Vec::new();
    from.take(DOCKERFILE_MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > DOCKERFILE_MAX_BYTES {
        return Err(Failure::new("the Dockerfile is larger than 16 MiB"));
    }
    Ok(content)
}

fn is_remote(context: &str) -> bool {
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
