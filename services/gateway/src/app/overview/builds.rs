use std::sync::Arc;

use prost::Message as _;

use super::page::List;
use super::shape::Time;
use crate::app::explain::{self, Explained};
use crate::app::{App, Failure, Outcome};
use crate::{shape, words};

words! {
    /// How far a build is.
    pub enum BuildState {
        Waiting = "waiting",
        Running = "running",
        Done = "done",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

shape! {
    /// A build. Those that are over are remembered within `--build-history`, `-days` and `-bytes` of the gateway.
    pub struct Build {
        /// Its id.
        pub id: String,
        /// How far it is.
        pub state: BuildState,
        /// The step that it is at, as its log says it; null unless it is followed through this gateway.
        pub step: Option<String>,
        /// Names that its image gets.
        pub tags: Vec<String>,
        /// Path of the Dockerfile in the context.
        pub dockerfile: String,
        /// Where the context was fetched from; null: the client sent it.
        pub remote: Option<String>,
        /// What the client calls its context, where it says so.
        pub source: Option<String>,
        /// The stage that was asked for; null: the last one.
        pub target: Option<String>,
        /// The platforms that were asked for; none: the worker's own.
        pub platforms: Vec<String>,
        /// Names of the build arguments that were given. Their values are not shown.
        pub build_args: Vec<String>,
        /// Which builder: "classic" or "graph".
        pub builder: String,
        /// Who asked for it.
        pub user: Option<String>,
        /// When it was asked for.
        pub created_at: Option<Time>,
        /// When its last attempt began.
        pub started_at: Option<Time>,
        /// When it was over.
        pub ended_at: Option<Time>,
        /// How often it was given to a worker: more than once when a worker was lost with it.
        pub attempt: u32,
        /// The worker that has it, or had it last.
        pub worker_id: Option<String>,
        /// The image that it made.
        pub image_id: Option<String>,
        /// Why it failed.
        pub error: Option<String>,
        /// Exit code of the step that failed.
        pub error_code: Option<i32>,
    }
}

shape! {
    /// A step of a build.
    pub struct BuildStep {
        /// Its place among the steps, from 1.
        pub number: u32,
        /// Names it in the build's log.
        pub digest: String,
        /// What it does, as the build's log says it.
        pub name: String,
        /// Its line in the Dockerfile.
        pub line: Option<u32>,
        /// When it began.
        pub started_at: Option<Time>,
        /// When it was over.
        pub completed_at: Option<Time>,
        /// Its result was there.
        pub cached: bool,
        /// The worker that ran it.
        pub worker_id: Option<String>,
        /// Its key in the cache.
        pub key: Option<String>,
        /// Why its result was not there.
        pub reason: Option<String>,
        /// Why it failed.
        pub error: Option<String>,
        /// Exit code of its command, where that failed.
        pub code: Option<i32>,
    }
}

shape! {
    /// A step with why it ran.
    pub struct ExplainedStep {
        /// What it does, as the build's log says it.
        pub name: String,
        /// Its line in the Dockerfile.
        pub line: Option<u32>,
        /// Its result was there.
        pub cached: bool,
        /// The worker that ran it.
        pub worker_id: Option<String>,
        /// How long it took; null: it is not over.
        pub seconds: Option<f64>,
        /// Why it ran, one reason after the other.
        pub reasons: Vec<String>,
    }
    /// Why the steps of a build ran.
    pub struct BuildExplained {
        /// The last build of the same before it: of the same context, Dockerfile and target.
        pub compared_with: Option<String>,
        /// The steps that have begun.
        pub steps: Vec<ExplainedStep>,
    }
}

impl App {
    /// The build whose id begins so.
    pub async fn build_shown(&self, prefix: &str) -> Outcome<Build> {
        let id = self.build_id(prefix).await?;
        let build = self.db.build(&id).await?;
        build.map(|build| self.shown(build)).ok_or_else(|| Failure::not_found(format!("no such build: {id}")))
    }

    /// Its steps, in the order in which they were told.
    pub async fn build_steps_shown(self: &Arc<Self>, prefix: &str) -> Outcome<List<BuildStep>> {
        let id = self.build_id(prefix).await?;
        let steps = self.steps_of_build(&id).await?;
        Ok(List::whole((1..).zip(steps).map(|(number, vertex)| step_shown(number, vertex)).collect()))
    }

    /// Why the steps of the build ran whose id begins so.
    pub async fn build_explained(self: &Arc<Self>, prefix: &str) -> Outcome<BuildExplained> {
        let explanation = self.explain_build(&self.build_id(prefix).await?).await?;
        let steps = explanation.steps.into_iter().map(|Explained { step, why }| ExplainedStep {
            // What the log itself tells, then what a comparison does.
            reasons: Some(step.reason)
                .filter(|told| !told.is_empty())
                .into_iter()
                .chain(explain::reasons(&why))
                .collect(),
            seconds: (step.completed_ns > 0).then(|| (step.completed_ns - step.started_ns).max(0) as f64 / 1e9),
            line: Some(step.line).filter(|&line| line != 0),
            name: step.name,
            cached: step.cached,
            worker_id: Some(step.worker).filter(|worker| !worker.is_empty()),
        });
        Ok(BuildExplained { compared_with: explanation.last, steps: steps.collect() })
    }

    pub(super) fn shown(&self, build: metadata::Build) -> Build {
        let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        Build {
            state: BuildState::of(&build.state).unwrap_or(BuildState::Cancelled),
            tags: options.tags,
            dockerfile: text(options.dockerfile).unwrap_or_else(|| "Dockerfile".to_owned()),
            remote: text(options.remote).map(|url| without_password(&url)),
            source: text(options.source).map(|url| without_password(&url)),
            target: text(options.target),
            platforms: match options.platforms.is_empty() {
                true => text(options.platform).into_iter().collect(),
                false => options.platforms,
            },
            build_args: sorted(options.build_args.into_keys().chain(options.unset_build_args)),
            builder: if options.graph { "graph" } else { "classic" }.to_owned(),
            user: text(options.user),
            created_at: Time::of_ms(build.created_ms),
            started_at: Time::of_ms(build.started_ms),
            ended_at: Time::of_ms(build.ended_ms),
            attempt: u32::try_from(build.attempt).unwrap_or(u32::MAX),
            worker_id: text(build.worker_id),
            image_id: text(build.image_id),
            error: text(build.error),
            error_code: i32::try_from(build.error_code).ok().filter(|code| *code != 0),
            step: self.step_of(&build.id),
            id: build.id,
        }
    }
}

fn step_shown(number: u32, vertex: proto::BuildVertex) -> BuildStep {
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    BuildStep {
        number,
        digest: vertex.digest,
        name: vertex.name,
        line: Some(vertex.line).filter(|&line| line != 0),
        started_at: Time::of_ns(vertex.started_ns),
        completed_at: Time::of_ns(vertex.completed_ns),
        cached: vertex.cached,
        worker_id: text(vertex.worker),
        key: text(vertex.key),
        reason: text(vertex.reason),
        error: text(vertex.error),
        code: Some(vertex.code).filter(|&code| code != 0),
    }
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// A URL may carry a user and a password, which are nobody's business here.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("https://me:secret@example.org/r.git#main:a@b", "https://example.org/r.git#main:a@b"),
            ("git://127.0.0.1:1/r.git", "git://127.0.0.1:1/r.git"),
            ("https://token@h", "https://h"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
