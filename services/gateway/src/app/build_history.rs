//! What is remembered of builds that are over: their steps in the database, their logs in the layer store.
//!
//! Whichever gateway ends a build records it: the log on the bus is read once more from its first chunk, whoever followed
//! it before. What a gateway that was killed has left is recorded at the next start.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use distribution::Body;
use metadata::BuildRecord;
use prost::Message as _;
use proto::build_log::What;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::build_log::BuildLogReader;
use super::images::repository_of;
use super::{App, Failure, Outcome};

/// Steps of a build that are remembered: a Dockerfile has a few dozen.
const STEPS: usize = 4000;
const COMPRESSION: i32 = 3;
const BUFFER_BYTES: usize = 256 * 1024;

/// The steps that a log has told of so far, in the order in which they were first told.
#[derive(Default)]
pub struct Steps {
    places: HashMap<String, usize>,
    vertices: Vec<proto::BuildVertex>,
}

impl Steps {
    pub fn hear(&mut self, trace: &proto::BuildTrace) {
        for vertex in &trace.vertices {
            match self.places.get(&vertex.digest) {
                Some(&place) => merge(&mut self.vertices[place], vertex),
                None if self.vertices.len() < STEPS => {
                    self.places.insert(vertex.digest.clone(), self.vertices.len());
                    self.vertices.push(vertex.clone());
                }
                None => {}
            }
        }
    }

    pub fn into_vertices(self) -> Vec<proto::BuildVertex> {
        self.vertices
    }
}

/// A vertex is told anew each time it changes; what was told once stays known.
fn merge(known: &mut proto::BuildVertex, told: &proto::BuildVertex) {
    let before = std::mem::replace(known, told.clone());
    if before.reason.is_empty()
        && let Some(why) = ran_before(&before, told)
    {
        known.reason = why;
    }
    if known.started_ns == 0 {
        known.started_ns = before.started_ns;
        // A later attempt announces its steps before it begins them.
        if known.completed_ns == 0 {
            (known.completed_ns, known.error) = (before.completed_ns, before.error);
        }
    }
    for (now, before) in
        [(&mut known.worker, before.worker), (&mut known.reason, before.reason), (&mut known.key, before.key)]
    {
        if now.is_empty() {
            *now = before;
        }
    }
    if known.key_inputs.is_empty() {
        known.key_inputs = before.key_inputs;
    }
    if known.line == 0 {
        known.line = before.line;
    }
    if known.view.is_none() {
        known.view = before.view;
    }
}

/// Why a step runs again that the same build has begun before: what it made there is lost.
fn ran_before(before: &proto::BuildVertex, told: &proto::BuildVertex) -> Option<String> {
    let began_again = before.started_ns != 0 && told.started_ns > before.started_ns;
    if !began_again || before.cached || told.cached || before.worker.is_empty() {
        return None;
    }
    let worker = &before.worker;
    Some(match before.completed_ns != 0 && before.error.is_empty() {
        true => format!("it runs again: worker {worker} was lost before its layer was stored"),
        false => format!("it runs again: it was cut short on worker {worker}"),
    })
}

impl App {
    /// A build is over: its end is recorded while others go on.
    pub fn remember(&self, id: &str) {
        let (Some(app), id) = (self.me.upgrade(), id.to_owned()) else { return };
        tokio::spawn(async move {
            if let Err(error) = app.record_end(&id).await {
                tracing::warn!(%error, build_id = id, "a build's end is not recorded: the next start tries again");
            }
        });
    }

    /// Records the ends of builds that nobody has recorded, and forgets builds that are past the caps.
    pub async fn remember_all(&self) -> Outcome<()> {
        for id in self.db.unrecorded_builds().await? {
            self.remember(&id);
        }
        self.forget_past().await
    }

    async fn record_end(self: &Arc<Self>, id: &str) -> Outcome<()> {
        let Some(build) = self.db.build(id).await? else { return Ok(()) };
        let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
        let lease = self.lease("build log").await?;
        let log = self.follow_build_log(id).await?;
        let (vertices, digest, bytes) = self.store_log(log, &lease.id).await?;
        let record = BuildRecord {
            steps: vertices.iter().map(prost::Message::encode_to_vec).collect(),
            log: digest.to_string(),
            log_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            same: sameness(&options),
        };
        self.likely.note(&record.same, &vertices);
        self.db.record_build(id, &record).await?;
        drop(lease);
        self.forget_past().await
    }

    /// Reads a log to its end, and stores it; its steps, its digest and its size in bytes.
    async fn store_log(
        &self,
        mut log: BuildLogReader,
        lease: &str,
    ) -> Outcome<(Vec<proto::BuildVertex>, model::Digest, u64)> {
        let (sender, body) = mpsc::channel::<std::io::Result<Bytes>>(4);
        let uploading = self.store.upload(Body::wrap_stream(ReceiverStream::new(body)), Some(lease));
        let reading = async move {
            let mut steps = Steps::default();
            let mut encoder = zstd::Encoder::new(Vec::new(), COMPRESSION).map_err(failed)?;
            while let Some(chunk) = log.next().await {
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(failure) => {
                        // A body that breaks off leaves nothing in the store.
                        let _ = sender.send(Err(std::io::Error::other(failure.message.clone()))).await;
                        return Err(failure);
                    }
                };
                encoder.write_all(&chunk.encode_length_delimited_to_vec()).map_err(failed)?;
                if let Some(What::Trace(trace)) = &chunk.what {
                    steps.hear(trace);
                }
                if encoder.get_ref().len() >= BUFFER_BYTES {
                    let _ = sender.send(Ok(std::mem::take(encoder.get_mut()).into())).await;
                }
            }
            let _ = sender.send(Ok(encoder.finish().map_err(failed)?.into())).await;
            Ok::<_, Failure>(steps.into_vertices())
        };
        let (stored, read) = tokio::join!(uploading, reading);
        let vertices = read?;
        let (digest, bytes) = stored?;
        Ok((vertices, digest, bytes))
    }

    async fn forget_past(&self) -> Outcome<()> {
        for id in self.db.builds_past(&self.history).await? {
            self.forget_build(&id).await?;
        }
        Ok(())
    }

    /// Forgets a build that is over, with its log; says whether it was, and how many bytes went.
    pub async fn forget_build(&self, id: &str) -> Outcome<Option<u64>> {
        let Some(forgotten) = self.db.forget_build(id).await? else { return Ok(None) };
        if forgotten.log.is_empty() || !self.release_blobs(vec![forgotten.log]).await.is_empty() {
            return Ok(Some(0));
        }
        Ok(Some(u64::try_from(forgotten.log_bytes).unwrap_or(0)))
    }

    /// Steps of a build, in the order in which they were told: of one that is over from its record, of another from its log
    /// so far.
    pub async fn steps_of_build(self: &Arc<Self>, id: &str) -> Outcome<Vec<proto::BuildVertex>> {
        if self.db.recorded_log(id).await?.is_some() {
            let stored = self.db.build_steps(id).await?;
            return Ok(stored.iter().filter_map(|vertex| proto::BuildVertex::decode(vertex.as_slice()).ok()).collect());
        }
        let mut log = self.build_log_so_far(id).await?;
        let mut steps = Steps::default();
        while let Some(chunk) = log.next().await {
            if let Some(What::Trace(trace)) = chunk?.what {
                steps.hear(&trace);
            }
        }
        Ok(steps.into_vertices())
    }

    /// The id that begins so.
    ///
    /// # Errors
    /// `NotFound` where there is none, `InvalidArgument` where there are several.
    pub async fn build_id(&self, prefix: &str) -> Outcome<String> {
        let mut found = if prefix.is_empty() { Vec::new() } else { self.db.build_ids(prefix).await? };
        // Clients may name a build so that another one's name goes on where it ends; the shorter one comes first.
        found.truncate(if found.first().is_some_and(|id| id == prefix) { 1 } else { 2 });
        match (found.pop(), found.pop()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Failure::not_found(format!("no such build: {prefix}"))),
            (Some(_), Some(_)) => Err(Failure::invalid(format!("multiple builds found with the id prefix {prefix}"))),
        }
    }
}

/// Builds that have this in common are compared with each other: the same Dockerfile and target of one context, as its
/// client calls it; of a context without a name, by the repositories that its image is tagged into.
pub fn sameness(options: &proto::BuildOptions) -> String {
    let mut repositories: Vec<&str> = options.tags.iter().map(|tag| repository_of(tag)).collect();
    repositories.sort_unstable();
    repositories.dedup();
    let context = match (options.source.as_str(), options.remote.as_str()) {
        ("", "") => ("tags", repositories.join(" ")),
        ("", remote) => ("remote", remote.to_owned()),
        (source, _) => ("source", source.to_owned()),
    };
    let dockerfile = if options.dockerfile.is_empty() { "Dockerfile" } else { &options.dockerfile };
    let platforms = if options.platforms.is_empty() { options.platform.clone() } else { options.platforms.join(",") };
    let text = serde_json::json!([context, dockerfile, options.target, platforms, options.user, options.graph]);
    model::Digest::of(text.to_string().as_bytes()).hex().to_owned()
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new(model::ErrorKind::Internal, format!("writing a build's log: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_known_by_all_that_was_told_of_it() {
        let vertex = |digest: &str| proto::BuildVertex { digest: digest.to_owned(), ..Default::default() };
        let mut steps = Steps::default();
        let first = proto::BuildVertex { started_ns: 5, worker: "w".to_owned(), line: 3, ..vertex("a") };
        steps.hear(&proto::BuildTrace { vertices: vec![first, vertex("b")], ..Default::default() });
        let last = proto::BuildVertex { completed_ns: 9, error: "no".to_owned(), ..vertex("a") };
        steps.hear(&proto::BuildTrace { vertices: vec![last], ..Default::default() });
        let known = steps.into_vertices();
        let all = proto::BuildVertex {
            started_ns: 5,
            completed_ns: 9,
            worker: "w".to_owned(),
            error: "no".to_owned(),
            line: 3,
            ..vertex("a")
        };
        assert_eq!(known, [all, vertex("b")]);
    }

    #[test]
    fn a_step_that_runs_again_says_why() {
        let on = |worker: &str, started_ns: i64, completed_ns: i64| proto::BuildVertex {
            digest: "a".to_owned(),
            worker: worker.to_owned(),
            started_ns,
            completed_ns,
            ..Default::default()
        };
        let cached = proto::BuildVertex { cached: true, ..on("", 7, 8) };
        let announced = on("", 0, 0);
        for (told, reason) in [
            (vec![on("w1", 5, 0), on("w1", 5, 6)], ""),
            (vec![on("w1", 5, 0), on("w2", 7, 0)], "it runs again: it was cut short on worker w1"),
            (
                vec![on("w1", 5, 6), announced, on("w2", 7, 0)],
                "it runs again: worker w1 was lost before its layer was stored",
            ),
            (
                vec![on("w1", 5, 6), on("w2", 7, 0), on("w2", 7, 9)],
                "it runs again: worker w1 was lost before its layer was stored",
            ),
            // What was stored is found.
            (vec![on("w1", 5, 6), cached], ""),
        ] {
            let mut steps = Steps::default();
            told.iter().for_each(|told| {
                steps.hear(&proto::BuildTrace { vertices: vec![told.clone()], ..Default::default() });
            });
            assert_eq!(steps.into_vertices()[0].reason, reason, "{told:?}");
        }
    }

    #[test]
    fn builds_are_the_same_by_their_context_and_dockerfile() {
        let tagged = |tag: &str| proto::BuildOptions { tags: vec![tag.to_owned()], ..Default::default() };
        let from = |source: &str, tag: &str| proto::BuildOptions { source: source.to_owned(), ..tagged(tag) };
        for (one, other, same) in [
            (tagged("app:1"), tagged("app:2"), true),
            (tagged("app:1"), tagged("web:1"), false),
            (from("h:/a", "x:1"), from("h:/a", "y:1"), true),
            (from("h:/a", "x:1"), from("h:/b", "x:1"), false),
            (tagged("a:1"), proto::BuildOptions { dockerfile: "Dockerfile".to_owned(), ..tagged("a:1") }, true),
            (tagged("a:1"), proto::BuildOptions { target: "t".to_owned(), ..tagged("a:1") }, false),
        ] {
            assert_eq!(sameness(&one) == sameness(&other), same, "{one:?} {other:?}");
        }
    }
}
