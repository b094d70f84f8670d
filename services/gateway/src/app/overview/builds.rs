use metadata::BuildsPage;
use prost::Message as _;

use super::page::{List, Page, cursor};
use super::shape::Time;
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
    /// A build. Records of ended ones are kept for a day.
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

impl App {
    pub async fn build_list(&self, page: &Page) -> Outcome<List<Build>> {
        let total = self.db.count_builds().await?.iter().map(|(_, _, count)| count).sum::<i64>();
        let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
        // One more than asked for says whether there is a next page.
        let asked = BuildsPage { after: page.after.clone(), limit: limit.saturating_add(1) };
        let mut rows = self.db.builds(&asked).await?;
        let is_more = rows.len() > page.limit;
        rows.truncate(page.limit);
        let next = rows.last().filter(|_| is_more).map(|last| cursor((last.created_ms, last.id.clone())));
        let items = rows.into_iter().map(|build| self.shown(build)).collect();
        Ok(List { items, total: usize::try_from(total).unwrap_or(0), next })
    }

    pub async fn build_shown(&self, id: &str) -> Outcome<Build> {
        let build = self.db.build(id).await?;
        build.map(|build| self.shown(build)).ok_or_else(|| Failure::not_found(format!("no such build: {id}")))
    }

    fn shown(&self, build: metadata::Build) -> Build {
        let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        Build {
            state: BuildState::of(&build.state).unwrap_or(BuildState::Cancelled),
            tags: options.tags,
            dockerfile: text(options.dockerfile).unwrap_or_else(|| "Dockerfile".to_owned()),
            remote: text(options.remote).map(|url| without_password(&url)),
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

/// A URL may carry a user and a password, which are nobody's business here.
fn without_password(url: &str) -> String {
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
