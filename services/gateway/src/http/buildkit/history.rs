//! `Control/ListenBuildHistory` and `UpdateBuildHistory`: builds that go on and builds that are remembered, as
//! `docker buildx history` lists, tells and forgets them. Who builds by gRPC gives a build its name (`Ref`); another build
//! is called by its id. There are no attestations, so a record names no content.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1 as wire;
use metadata::{Build, BuildsPage};
use prost::Message as _;
use tokio::sync::{broadcast, mpsc};
use tonic::{Code, Status};
use wire::BuildHistoryEventType as Kind;

use super::filter::{Field, Filter, Filtered};
use super::grpc::status_of;
use super::status::time;
use crate::app::overview::builds::without_password;
use crate::app::{App, Failure, Outcome, filters, now_ns};

/// Rows that are read of the database at once.
const PAGE: u32 = 100;

type Answers = mpsc::Sender<Result<wire::BuildHistoryEvent, Status>>;

const FIELDS: &[Field] = &[
    Field::text("ref"),
    Field::text("status"),
    Field::text("repository"),
    Field::ordered("startedAt", seconds),
    Field::ordered("completedAt", seconds),
    Field::ordered("duration", filters::duration_ms),
];

/// Seconds since 1970 of a time stamp, or of so long ago.
fn seconds(text: &str) -> Option<i64> {
    filters::time_ms(text, now_ns() / 1_000_000).map(|ms| ms / 1000)
}

impl Filtered for wire::BuildHistoryRecord {
    fn text(&self, field: &str) -> Option<String> {
        match field {
            "ref" => Some(self.r#ref.clone()),
            "status" => Some(
                match (&self.completed_at, &self.error) {
                    (None, _) => "running",
                    (Some(_), None) => "completed",
                    (Some(_), Some(error)) if error.code == i32::from(Code::Cancelled) => "canceled",
                    (Some(_), Some(_)) => "error",
                }
                .to_owned(),
            ),
            "repository" => self.frontend_attrs.get("context").cloned(),
            _ => None,
        }
    }

    fn number(&self, field: &str) -> i64 {
        let seconds = |at: &Option<bollard_buildkit_proto::google::protobuf::Timestamp>| at.map_or(0, |at| at.seconds);
        let ms = |at: bollard_buildkit_proto::google::protobuf::Timestamp| {
            at.seconds * 1000 + i64::from(at.nanos) / 1_000_000
        };
        match field {
            "startedAt" => seconds(&self.created_at),
            "completedAt" => seconds(&self.completed_at),
            _ => self.completed_at.zip(self.created_at).map_or(0, |(end, begin)| ms(end) - ms(begin)),
        }
    }
}

/// Which builds are told.
pub struct Wanted {
    request: wire::BuildHistoryRequest,
    filter: Filter,
}

impl Wanted {
    /// # Errors
    /// `InvalidArgument` for a filter or a limit that makes no sense.
    pub fn new(request: wire::BuildHistoryRequest) -> Outcome<Self> {
        if request.limit < 0 {
            return Err(Failure::invalid(format!("invalid limit {}", request.limit)));
        }
        Ok(Self { filter: Filter::parse(&request.filter, FIELDS)?, request })
    }

    /// Whether the client wants this build, by its name and by whether it goes on.
    fn takes(&self, build: &Build) -> bool {
        let is_named = self.request.r#ref.is_empty() || self.request.r#ref == build.id;
        is_named && (!self.request.active_only || build.ended_ms == 0)
    }
}

/// Tells the builds that there are, and, unless the client wants an early exit, what begins and ends from then on.
pub async fn listen(app: Arc<App>, wanted: Wanted, answers: Answers) {
    // From now on, so that nothing is lost between the list and what follows it.
    let (_, events) = app.events.follow_all();
    let told = async {
        list(&app, &wanted, &answers).await?;
        match wanted.request.early_exit {
            true => Ok(()),
            false => follow(&app, &wanted, events, &answers).await,
        }
    };
    if let Err(failure) = told.await {
        // Whoever has gone need not hear it.
        let _ = answers.send(Err(status_of(failure))).await;
    }
}

async fn list(app: &Arc<App>, wanted: &Wanted, answers: &Answers) -> Outcome<()> {
    let mut left = usize::try_from(wanted.request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let mut page = BuildsPage { after: None, limit: PAGE };
    loop {
        let builds = match wanted.request.r#ref.as_str() {
            "" => app.db.builds(&page).await?,
            name => app.db.build(name).await?.into_iter().collect(),
        };
        let is_last = !wanted.request.r#ref.is_empty() || builds.len() < PAGE as usize;
        page.after = builds.last().map(|last| (last.created_ms, last.id.clone()));
        for build in builds.into_iter().filter(|build| wanted.takes(build)) {
            if left == 0 {
                return Ok(());
            }
            if let Some(event) = event(app, wanted, build).await? {
                left -= 1;
                if answers.send(Ok(event)).await.is_err() {
                    return Ok(());
                }
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

async fn follow(
    app: &Arc<App>,
    wanted: &Wanted,
    mut events: broadcast::Receiver<Arc<crate::app::events::Told>>,
    answers: &Answers,
) -> Outcome<()> {
    loop {
        let told = tokio::select! {
            told = events.recv() => told,
            () = answers.closed() => return Ok(()),
        };
        let told = match told {
            Ok(told) => told,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                return Err(Failure::new(model::ErrorKind::Exhausted, "the client reads builds too slowly"));
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        if told.kind != "build" || told.action == "started" {
            continue;
        }
        let Some(build) = app.db.build(&told.id).await? else { continue };
        // An end counts for those that listen to active builds, too.
        let is_named = wanted.request.r#ref.is_empty() || wanted.request.r#ref == build.id;
        if is_named
            && let Some(event) = event(app, wanted, build).await?
            && answers.send(Ok(event)).await.is_err()
        {
            return Ok(());
        }
    }
}

/// None for what the filter leaves out, and for a build of the classic builder.
async fn event(app: &Arc<App>, wanted: &Wanted, build: Build) -> Outcome<Option<wire::BuildHistoryEvent>> {
    let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
    if !options.graph {
        return Ok(None);
    }
    let kind = if build.ended_ms == 0 { Kind::Started } else { Kind::Complete };
    let mut record = record(&build, options);
    if !wanted.filter.passes(&record) {
        return Ok(None);
    }
    for step in app.steps_of_build(&build.id).await? {
        record.num_total_steps += 1;
        record.num_cached_steps += i32::from(step.cached);
        record.num_completed_steps += i32::from(step.completed_ns > 0);
    }
    Ok(Some(wire::BuildHistoryEvent { r#type: kind.into(), record: Some(record) }))
}

fn record(build: &Build, options: proto::BuildOptions) -> wire::BuildHistoryRecord {
    let error = match build.state.as_str() {
        "failed" => Some((Code::Unknown, build.error.clone())),
        "cancelled" => Some((Code::Cancelled, "context canceled".to_owned())),
        _ => None,
    };
    let mut response = HashMap::new();
    if !build.image_id.is_empty() {
        response.insert("containerimage.config.digest".to_owned(), build.image_id.clone());
        if !options.tags.is_empty() {
            response.insert("image.name".to_owned(), options.tags.join(","));
        }
    }
    let moment = |ms: i64| time(ms.saturating_mul(1_000_000));
    wire::BuildHistoryRecord {
        r#ref: build.id.clone(),
        frontend: "dockerfile.v0".to_owned(),
        exporters: options.outputs.iter().map(exporter).collect(),
        frontend_attrs: attrs(options),
        error: error.map(|(code, message)| rpc::Status { code: code.into(), message, details: Vec::new() }),
        created_at: moment(build.created_ms),
        completed_at: moment(build.ended_ms),
        exporter_response: response,
        ..Default::default()
    }
}

fn exporter(output: &proto::BuildOutput) -> wire::Exporter {
    wire::Exporter { r#type: output.r#type.clone(), attrs: output.attributes.clone() }
}

/// What the frontend was asked for.
fn attrs(options: proto::BuildOptions) -> HashMap<String, String> {
    let platforms = if options.platforms.is_empty() { options.platform } else { options.platforms.join(",") };
    let context = match options.remote.is_empty() {
        true => options.source,
        false => without_password(&options.remote),
    };
    let dockerfile = if options.dockerfile.is_empty() { "Dockerfile".to_owned() } else { options.dockerfile };
    let named = [("filename", dockerfile), ("target", options.target), ("platform", platforms), ("context", context)];
    let named = named.into_iter().filter(|(_, value)| !value.is_empty());
    let named = named.map(|(key, value)| (key.to_owned(), value));
    let args = options.build_args.into_iter().map(|(name, value)| (format!("build-arg:{name}"), value));
    let labels = options.labels.into_iter().map(|(name, value)| (format!("label:{name}"), value));
    named.chain(args).chain(labels).collect()
}

/// Forgets a build. That it is finished off is a wish that every build which is over fulfils already.
///
/// # Errors
/// `NotFound`; `FailedPrecondition` for one that goes on; `Unimplemented` for a pin.
pub async fn update(app: &Arc<App>, request: &wire::UpdateBuildHistoryRequest) -> Outcome<()> {
    if request.pinned {
        return Err(Failure::not_built("builds are remembered within --build-history: none is pinned"));
    }
    let name = &request.r#ref;
    let missing = || Failure::not_found(format!("failed to retrieve ref {name}"));
    if !request.delete {
        return app.db.build(name).await?.map(drop).ok_or_else(missing);
    }
    app.db.build(name).await?.ok_or_else(missing)?;
    match app.forget_build(name).await? {
        Some(_) => Ok(()),
        None => Err(Failure::conflict(format!("build {name} is not over"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(state: &str, ended_ms: i64) -> Build {
        Build {
            id: "x1".to_owned(),
            options: Vec::new(),
            state: state.to_owned(),
            attempt: 1,
            worker_id: String::new(),
            lease_until_ms: 0,
            image_id: String::new(),
            error: "no".to_owned(),
            error_code: 0,
            created_ms: 5_000,
            started_ms: 0,
            ended_ms,
        }
    }

    #[test]
    fn records_say_how_a_build_ended_and_what_was_asked() {
        for (state, ended_ms, status) in [
            ("running", 0, "running"),
            ("done", 9_000, "completed"),
            ("failed", 9_000, "error"),
            ("cancelled", 9_000, "canceled"),
        ] {
            let record = record(&build(state, ended_ms), proto::BuildOptions::default());
            assert_eq!(record.text("status").as_deref(), Some(status));
            assert_eq!(record.number("duration"), if ended_ms == 0 { 0 } else { 4_000 });
        }
        let options = proto::BuildOptions {
            remote: "https://me:secret@example.org/r.git".to_owned(),
            target: "t".to_owned(),
            build_args: HashMap::from([("A".to_owned(), "1".to_owned())]),
            ..Default::default()
        };
        let attrs = record(&build("done", 9_000), options).frontend_attrs;
        assert_eq!(attrs["context"], "https://example.org/r.git");
        assert_eq!((attrs["target"].as_str(), attrs["build-arg:A"].as_str()), ("t", "1"));
        assert_eq!((attrs["filename"].as_str(), attrs.get("platform")), ("Dockerfile", None));
    }

    #[test]
    fn filters_of_builds() {
        let record = record(&build("failed", 9_000), proto::BuildOptions::default());
        for (text, passes) in [
            ("status==error", true),
            ("status==completed", false),
            ("ref~=x", true),
            ("duration>3s", true),
            ("duration>=1m", false),
            ("startedAt<1h", true),
            ("repository~=r", false),
        ] {
            assert_eq!(Filter::parse(&[text.to_owned()], FIELDS).expect(text).passes(&record), passes, "{text}");
        }
    }
}
