//! A build by Boxyard's own clients: options as JSON, the context as a tar or asked of the client's session, and an
//! answer that tells the steps.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use proto::Attendance;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::api::{About, Api, Parameter, ParameterKind};
use super::builds::{ID, LINES};
use super::sent;
use crate::app::build_log::BuildLogReader;
use crate::app::lease::Lease;
use crate::app::orphans::Alone;
use crate::app::{App, Failure, Outcome, random_id};
use crate::http::answer::Answer;
use crate::http::peer::UserName;
use crate::http::query::Query;
use crate::http::{build_lines, builds, credentials};

/// Lines that wait for the client.
const WAITING: usize = 64;
const ABOUT: About = About {
    summary: "Builds a Dockerfile. The body is a tar of the context; none where the context is remote, or asked of the \
              session that `options` names. The answer is lines of JSON: first the build's `id`, then those of its log, and \
              last `end` with the exporters' `response`, or `error` with `code`. A client that leaves cancels the build; one whose \
              gateway has ended comes back by `attach`.",
    parameters: &[
        Parameter {
            name: "options",
            about: "JSON with the fields of BuildOptions (proto/boxyard/v1/build.proto); others are refused.",
            kind: ParameterKind::Text,
        },
        Parameter {
            name: "detach",
            about: "Answer with the build's `id` at once; the build goes on.",
            kind: ParameterKind::Flag,
        },
    ],
    content_type: LINES,
    refusals: &[400, 503],
};

const ATTACH: About = About {
    summary: "The client of a build comes back after its gateway has ended, with the session that it had (opened again by \
              `POST /session`). The answer is as that of the build's begin, from its first line on; of a build that is over \
              too. A client that has not come back within a minute has left.",
    parameters: &[
        ID,
        Parameter {
            name: "session",
            about: "Id of the build's session; absent where it has none.",
            kind: ParameterKind::Text,
        },
    ],
    content_type: LINES,
    refusals: &[403, 404, 409, 503],
};

/// Adds the routes to the table.
pub fn add_to(api: Api) -> Api {
    api.answered::<String, _, _>("/boxyard/v1/builds", &ABOUT, begin).answered::<String, _, _>(
        "/boxyard/v1/builds/{id}/attach",
        &ATTACH,
        attach,
    )
}

async fn begin(
    State(app): State<Arc<App>>,
    UserName(user): UserName,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let text = query.maybe("options").unwrap_or("{}");
    let asked: Options = serde_json::from_str(text).map_err(|error| Failure::invalid(format!("options: {error}")))?;
    let mut options = proto::BuildOptions { user, ..asked.into_proto()? };
    let detached = query.flag("detach");
    options.session_dockerfile &= !options.session_id.is_empty() && !options.remote.is_empty();
    options.set_attendance(if detached { Attendance::Absent } else { Attendance::Returning });
    if options.session_id.is_empty() {
        options.session_context = false;
    } else if detached {
        return Err(Failure::invalid("a build by a session cannot be detached").into());
    } else {
        app.session(&options.session_id).await?;
        app.db.session().clone_into(&mut options.session_gateway);
    }
    let lease = app.lease("build").await?;
    if options.remote.is_empty() && !options.session_context {
        options.context = Some(builds::upload(&app, body, &lease.id).await?);
    }
    let id = random_id()[..32].to_owned();
    let log = app.follow_build_log(&id).await?;
    app.queue_build(&id, &options, credentials::of_build(&headers)).await?;
    let context = options.context.map(|context| context.digest);
    if detached {
        tokio::spawn(app.see_to_its_end(Alone { id: id.clone(), log, context, lease }));
        return sent(&json!({"id": id}));
    }
    Ok(Running { app, id, log, context, lease }.answer())
}

/// The client of a build is there again: it hears the log from the first line on.
async fn attach(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query, headers: HeaderMap) -> Answer {
    let id = app.build_id(&id).await?;
    let session = query.maybe("session").unwrap_or_default();
    let lease = app.lease("build").await?;
    let context = app.come_back(&id, session, credentials::of_build(&headers)).await?;
    if let Some(context) = &context {
        app.store.has(&context.parse().map_err(Failure::from)?, Some(&lease.id)).await.map_err(Failure::from)?;
    }
    let log = app.read_build_log(&id).await?;
    Ok(Running { app, id, log, context, lease }.answer())
}

/// A build whose client waits, and what is held for it.
struct Running {
    app: Arc<App>,
    id: String,
    log: BuildLogReader,
    context: Option<String>,
    lease: Lease,
}

impl Running {
    /// The build's id, then its log.
    fn answer(self) -> Response {
        let first = futures::stream::iter([json!({"id": self.id})]);
        let (lines, receiver) = mpsc::channel(WAITING);
        tokio::spawn(self.follow(lines));
        crate::http::lines_as(LINES, futures::StreamExt::chain(first, ReceiverStream::new(receiver)))
    }

    /// Passes the log on until the build has ended. A client that leaves cancels the build; so does a log that cannot be
    /// read, since its client, which is told, waits no longer.
    async fn follow(mut self, client: mpsc::Sender<Value>) {
        loop {
            let line = tokio::select! {
                line = self.next() => line,
                () = client.closed() => return self.app.client_left(&self.id, self.context).await,
            };
            let (line, goes_on) = match line {
                Some(Ok(line)) => (line, true),
                Some(Err(failure)) => (json!({"error": failure.message, "code": 0}), false),
                None => break,
            };
            if client.send(line).await.is_err() || !goes_on {
                return self.app.client_left(&self.id, self.context).await;
            }
        }
        drop(self.lease);
        self.app.end_build(&self.id, self.context).await;
    }

    /// The next line, or why it cannot be read; none when the build is over.
    async fn next(&mut self) -> Option<Outcome<Value>> {
        loop {
            match self.log.next().await?.map(|chunk| build_lines::line(&chunk)) {
                Ok(None) => {}
                told => return told.transpose(),
            }
        }
    }
}

/// The fields of `proto::BuildOptions` that a client may set.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    dockerfile: String,
    tags: Vec<String>,
    build_args: HashMap<String, String>,
    labels: HashMap<String, String>,
    target: String,
    network_mode: String,
    no_cache: bool,
    pull: bool,
    squash: bool,
    resources: Resources,
    extra_hosts: Vec<String>,
    remote: String,
    shm_bytes: u64,
    session_id: String,
    session_dockerfile: bool,
    contexts: Vec<NamedContext>,
    outputs: Vec<Typed>,
    cache_imports: Vec<Typed>,
    cache_exports: Vec<Typed>,
    platforms: Vec<String>,
    entitlements: Vec<String>,
    no_cache_stages: Vec<String>,
    ulimits: Vec<String>,
    check: String,
    worker_labels: HashMap<String, String>,
    priority: i32,
    max_parallel: u32,
    source: String,
    keep_failed: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Resources {
    memory_bytes: i64,
    memory_swap_bytes: i64,
    cpu_shares: i64,
    cpu_period_us: i64,
    cpu_quota_us: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    cgroup_parent: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedContext {
    name: String,
    source: String,
}

/// An output or a cache.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    r#type: String,
    #[serde(default)]
    attributes: HashMap<String, String>,
}

impl From<Typed> for proto::CacheOption {
    fn from(Typed { r#type, attributes }: Typed) -> Self {
        Self { r#type, attributes }
    }
}

impl From<Typed> for proto::BuildOutput {
    fn from(Typed { r#type, attributes }: Typed) -> Self {
        Self { r#type, attributes, store: String::new() }
    }
}

impl Options {
    fn into_proto(self) -> Outcome<proto::BuildOptions> {
        let mut tags = Vec::new();
        for tag in self.tags.iter().filter(|tag| !tag.is_empty()) {
            tags.push(tag.parse::<model::ImageRef>()?.or_latest().familiar());
        }
        for platform in &self.platforms {
            platform.parse::<model::Platform>()?;
        }
        if !["", "lint", "outline", "targets"].contains(&self.check.as_str()) {
            return Err(Failure::invalid(format!("unsupported request {:?}", self.check)));
        }
        let Resources {
            memory_bytes,
            memory_swap_bytes,
            cpu_shares,
            cpu_period_us,
            cpu_quota_us,
            cpuset_cpus,
            cpuset_mems,
            cgroup_parent,
        } = self.resources;
        let resources = proto::Resources {
            memory_bytes,
            memory_swap_bytes,
            cpu_shares,
            cpu_period_us,
            cpu_quota_us,
            cpuset_cpus,
            cpuset_mems,
            cgroup_parent,
            ..Default::default()
        };
        let contexts = self.contexts.into_iter();
        Ok(proto::BuildOptions {
            graph: true,
            session_context: self.remote.is_empty(),
            dockerfile: self.dockerfile,
            tags,
            build_args: self.build_args,
            labels: self.labels,
            target: self.target,
            network_mode: self.network_mode,
            no_cache: self.no_cache,
            pull: self.pull,
            squash: self.squash,
            resources: Some(resources),
            extra_hosts: self.extra_hosts,
            remote: self.remote,
            shm_bytes: self.shm_bytes,
            session_id: self.session_id,
            session_dockerfile: self.session_dockerfile,
            contexts: contexts
                .map(|NamedContext { name, source }| proto::NamedContext { name, source, results: Vec::new() })
                .collect(),
            outputs: self.outputs.into_iter().map(Into::into).collect(),
            cache_imports: self.cache_imports.into_iter().map(Into::into).collect(),
            cache_exports: self.cache_exports.into_iter().map(Into::into).collect(),
            platforms: self.platforms,
            entitlements: self.entitlements,
            no_cache_stages: self.no_cache_stages,
            ulimits: self.ulimits,
            check: self.check,
            worker_labels: self.worker_labels,
            priority: self.priority,
            max_parallel: self.max_parallel,
            source: self.source,
            keep_failed: self.keep_failed,
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_client() {
        let read = |text: &str| {
            let options: Options = serde_json::from_str(text).map_err(|error| error.to_string())?;
            options.into_proto().map_err(|failure| failure.message)
        };
        let options = read(
            r#"{"tags":["a"],"outputs":[{"type":"oci","attributes":{"dest":"-"}}],"resources":{"cpu_shares":2},
                "contexts":[{"name":"c","source":"session:"}]}"#,
        )
        .expect("legal");
        assert_eq!((options.tags.as_slice(), options.graph), (&["a:latest".to_owned()][..], true));
        assert_eq!(options.outputs[0].attributes["dest"], "-");
        assert_eq!(options.resources.expect("resources").cpu_shares, 2);
        assert!(read(r#"{"session_gateway":"x"}"#).expect_err("not a client's to say").contains("unknown field"));
        assert!(read(r#"{"check":"everything"}"#).expect_err("refused").contains("unsupported request"));
        assert!(read(r#"{"tags":["UPPER"]}"#).is_err() && read(r#"{"platforms":["?"]}"#).is_err());
    }
}
