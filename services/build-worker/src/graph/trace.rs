//! What is told of a graph build, as BuildKit tells it: vertices, what they print, how far they are.

use std::sync::{Arc, OnceLock};

use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;
use crate::flight::Flight;
use crate::layers::now_ns;
use crate::log::Log;
use crate::output::Output;

/// What waits to be told; a step that prints faster waits.
const QUEUE: usize = 1024;
/// One chunk of the log carries at most so much, and one more message.
const CHUNK_BYTES: usize = 32 * 1024;

/// Tells what happens, in order. Clones tell into the same log.
#[derive(Clone)]
pub struct Trace {
    queue: mpsc::Sender<Told>,
    /// The first step that failed by itself, and the build with it.
    failed: Arc<OnceLock<proto::BuildVertex>>,
    _writer: Arc<AbortOnDropHandle<()>>,
}

enum Told {
    Vertex(Box<proto::BuildVertex>),
    Status(Box<proto::BuildStatus>),
    Line(proto::BuildOutputLine),
    Warning(Box<proto::BuildWarning>),
    /// Everything before it is in the log.
    Flush(oneshot::Sender<()>),
}

impl Trace {
    pub fn new(log: Arc<Log>) -> Self {
        let (queue, told) = mpsc::channel(QUEUE);
        let writer = Arc::new(AbortOnDropHandle::new(tokio::spawn(write(log, told))));
        Self { queue, failed: Arc::default(), _writer: writer }
    }

    async fn tell(&self, told: Told) {
        // The writer ends with the last of its senders.
        let _ = self.queue.send(told).await;
    }

    /// Warns of the Dockerfile, beside the step that read it.
    pub async fn warn(&self, vertex: &str, warned: Warned) {
        let Warned { short, detail, url, lines: (first_line, last_line) } = warned;
        let warning = proto::BuildWarning {
            vertex: vertex.to_owned(),
            level: 1,
            short,
            detail: vec![detail],
            url,
            first_line,
            last_line,
        };
        self.tell(Told::Warning(Box::new(warning))).await;
    }

    /// The first step that failed by itself, and the build with it.
    pub fn failed(&self) -> Option<&proto::BuildVertex> {
        self.failed.get()
    }

    /// Waits until all that was told is in the log.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.tell(Told::Flush(done)).await;
        let _ = flushed.await;
    }
}

/// What the author of a Dockerfile is warned of.
pub struct Warned {
    pub short: String,
    pub detail: String,
    pub url: String,
    /// The first and the last one.
    pub lines: (u32, u32),
}

/// Messages that wait go together into one chunk.
async fn write(log: Arc<Log>, mut told: mpsc::Receiver<Told>) {
    while let Some(first) = told.recv().await {
        let (mut trace, mut bytes, mut flushed) = (proto::BuildTrace::default(), 0, Vec::new());
        let mut next = Some(first);
        while let Some(one) = next {
            bytes += add(&mut trace, one, &mut flushed);
            next = if bytes < CHUNK_BYTES { told.try_recv().ok() } else { None };
        }
        if trace != proto::BuildTrace::default()
            && let Err(error) = log.trace(trace).await
        {
            tracing::warn!(%error, "a part of a build's log is lost");
        }
        for done in flushed {
            // Who waited may have gone.
            let _ = done.send(());
        }
    }
}

fn add(trace: &mut proto::BuildTrace, told: Told, flushed: &mut Vec<oneshot::Sender<()>>) -> usize {
    match told {
        Told::Vertex(vertex) => {
            let bytes = vertex.encoded_len();
            trace.vertices.push(*vertex);
            bytes
        }
        Told::Status(status) => {
            let bytes = status.encoded_len();
            trace.statuses.push(*status);
            bytes
        }
        Told::Line(line) => {
            let bytes = line.encoded_len();
            trace.lines.push(line);
            bytes
        }
        Told::Warning(warning) => {
            let bytes = warning.encoded_len();
            trace.warnings.push(*warning);
            bytes
        }
        Told::Flush(done) => {
            flushed.push(done);
            0
        }
    }
}

/// One step as it is told. It is told again each time that it changes.
pub struct Vertex {
    trace: Trace,
    pub told: proto::BuildVertex,
    /// What its key is made of, told when it is over.
    pub key_inputs: Vec<proto::KeyInput>,
    /// What it saw, told when it is over.
    pub view: Option<proto::StepView>,
    /// The build goes on where it fails, so that is not why the build fails.
    pub may_fail: bool,
}

impl Vertex {
    /// `place` names the step in its build.
    pub fn new(trace: &Trace, place: &str, name: String) -> Self {
        let digest = model::Digest::of(place.as_bytes()).to_string();
        Self {
            trace: trace.clone(),
            told: proto::BuildVertex { digest, name, ..Default::default() },
            key_inputs: Vec::new(),
            view: None,
            may_fail: false,
        }
    }

    pub fn digest(&self) -> &str {
        &self.told.digest
    }

    /// Tells that there is such a step.
    pub async fn announce(&self) {
        self.trace.tell(Told::Vertex(Box::new(self.told.clone()))).await;
    }

    pub async fn start(&mut self) {
        if self.told.started_ns == 0 {
            self.told.started_ns = now_ns();
        }
        self.announce().await;
    }

    /// Its result was there.
    pub async fn cached(&mut self) {
        self.told.cached = true;
        self.start().await;
        self.complete(None).await;
    }

    pub async fn complete(&mut self, error: Option<&Failure>) {
        if self.told.started_ns == 0 {
            self.told.started_ns = now_ns();
        }
        self.told.completed_ns = now_ns();
        self.told.code = error.map_or(0, Failure::code);
        self.told.key_inputs = std::mem::take(&mut self.key_inputs);
        self.told.view = self.view.take();
        self.told.error = error
            .map(|error| match error {
                // As every client of BuildKit knows it.
                Failure::Cancelled => "context canceled".to_owned(),
                other => other.to_string(),
            })
            .unwrap_or_default();
        if !self.may_fail && error.is_some_and(|error| !matches!(error, Failure::Cancelled)) {
            self.trace.failed.get_or_init(|| self.told.clone());
        }
        self.announce().await;
    }

    /// Runs what is this step's work, between its start and its end.
    pub async fn around<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.start().await;
        let done = work.await;
        self.complete(done.as_ref().err()).await;
        done
    }

    /// Something that the step does, from its begin to its end.
    pub async fn status<T>(&self, id: &str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut status = proto::BuildStatus {
            id: id.to_owned(),
            vertex: self.told.digest.clone(),
            timestamp_ns: now_ns(),
            started_ns: now_ns(),
            ..Default::default()
        };
        self.trace.tell(Told::Status(Box::new(status.clone()))).await;
        let done = work.await;
        if done.is_ok() {
            (status.timestamp_ns, status.completed_ns) = (now_ns(), now_ns());
            self.trace.tell(Told::Status(Box::new(status))).await;
        }
        done
    }

    /// How far something is that the step does.
    pub async fn progress(&self, status: proto::BuildStatus) {
        let status = proto::BuildStatus { vertex: self.told.digest.clone(), ..status };
        self.trace.tell(Told::Status(Box::new(status))).await;
    }

    /// What another runs for this step.
    pub async fn line(&self, line: proto::BuildOutputLine) {
        self.trace.tell(Told::Line(proto::BuildOutputLine { vertex: self.told.digest.clone(), ..line })).await;
    }

    /// What the step's command prints; who follows the step hears it, too.
    pub fn lines(&self, flight: Option<Arc<Flight>>) -> Lines<'_> {
        Lines { vertex: self, flight }
    }
}

/// Output of a step that runs here for a build of this worker.
pub struct Lines<'a> {
    vertex: &'a Vertex,
    flight: Option<Arc<Flight>>,
}

impl Output for Lines<'_> {
    async fn write(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Failure> {
        for text in bytes.chunks(CHUNK_BYTES) {
            let (stream, text) = (u32::from(stream), text.to_vec());
            let line = proto::BuildOutputLine { vertex: String::new(), timestamp_ns: now_ns(), stream, text };
            if let Some(flight) = &self.flight {
                flight.tell(&line);
            }
            self.vertex.line(line).await;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
