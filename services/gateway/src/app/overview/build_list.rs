//! The list of builds, and its filters.

use metadata::BuildsPage;
use prost::Message as _;

use super::builds::{Build, BuildState};
use super::page::{List, Page, cursor};
use crate::app::filters::Filters;
use crate::app::images::repository_of;
use crate::app::{App, Failure, Outcome};

/// Rows that are read at once.
const READ: u32 = 500;

/// Which builds are listed.
struct Wanted<'a> {
    filters: &'a Filters,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
}

impl App {
    /// # Errors
    /// `InvalidArgument` for a filter that no build can have.
    pub async fn build_list(&self, page: &Page, filters: &Filters) -> Outcome<List<Build>> {
        if !filters.is_empty() {
            return self.chosen_builds(page, filters).await;
        }
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

    async fn chosen_builds(&self, page: &Page, filters: &Filters) -> Outcome<List<Build>> {
        let wanted = Wanted::new(filters, self.db.now_ms())?;
        let (mut chosen, mut after) = (Vec::new(), None);
        loop {
            let rows = self.db.builds(&BuildsPage { after: after.take(), limit: READ }).await?;
            let is_last = rows.len() < READ as usize;
            after = rows.last().map(|last| (last.created_ms, last.id.clone()));
            chosen.extend(rows.into_iter().filter(|build| wanted.has(build)));
            if is_last {
                let page = page.of(chosen, |build| (build.created_ms, build.id.clone()));
                return Ok(page.map(|build| self.shown(build)));
            }
        }
    }
}

impl<'a> Wanted<'a> {
    fn new(filters: &'a Filters, now_ms: i64) -> Outcome<Self> {
        if let Some(word) = filters.values("status").find(|word| BuildState::of(word).is_none()) {
            return Err(Failure::invalid(format!("invalid filter 'status={word}'")));
        }
        if let Some(word) = filters.values("builder").find(|word| !["classic", "graph"].contains(word)) {
            return Err(Failure::invalid(format!("invalid filter 'builder={word}'")));
        }
        let (since_ms, until_ms) = (filters.moment_ms("since", now_ms)?, filters.moment_ms("until", now_ms)?);
        Ok(Self { filters, since_ms, until_ms })
    }

    fn has(&self, build: &metadata::Build) -> bool {
        let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
        let builder = if options.graph { "graph" } else { "classic" };
        let is_called = |name: &str| options.tags.iter().any(|tag| tag == name || repository_of(tag) == name);
        self.since_ms.is_none_or(|since| build.created_ms >= since)
            && self.until_ms.is_none_or(|until| build.created_ms < until)
            && self.filters.any("id", |id| build.id.starts_with(id))
            && self.filters.any("status", |word| build.state == word)
            && self.filters.any("worker", |id| build.worker_id == id)
            && self.filters.any("user", |user| options.user == user)
            && self.filters.any("builder", |word| builder == word)
            && self.filters.any("tag", is_called)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::filters::OF_BUILDS;

    fn read(text: &str) -> Outcome<Filters> {
        Filters::parse(text, OF_BUILDS)
    }

    #[test]
    fn builds_are_chosen_by_what_they_are() {
        let options = proto::BuildOptions {
            graph: true,
            tags: vec!["registry:5000/app:1".to_owned()],
            user: "me".to_owned(),
            ..Default::default()
        };
        let build = metadata::Build {
            id: "0123".to_owned(),
            options: options.encode_to_vec(),
            state: "failed".to_owned(),
            attempt: 1,
            worker_id: "w1".to_owned(),
            lease_until_ms: 0,
            image_id: String::new(),
            error: String::new(),
            error_code: 0,
            created_ms: 50_000,
            started_ms: 0,
            ended_ms: 0,
        };
        for (text, fits) in [
            (r#"{"status":{"failed":true}}"#, true),
            (r#"{"status":{"failed":true,"done":true},"worker":{"w1":true}}"#, true),
            (r#"{"status":{"done":true}}"#, false),
            (r#"{"tag":{"registry:5000/app":true}}"#, true),
            (r#"{"tag":{"registry:5000/app:1":true}}"#, true),
            (r#"{"tag":{"app":true}}"#, false),
            (r#"{"user":{"me":true},"builder":{"graph":true},"id":{"01":true}}"#, true),
            (r#"{"builder":{"classic":true}}"#, false),
            (r#"{"since":{"50":true},"until":{"51":true}}"#, true),
            (r#"{"until":{"50":true}}"#, false),
            (r#"{"since":{"10s":true}}"#, false),
        ] {
            let filters = read(text).unwrap_or_else(|failure| panic!("{text}: {}", failure.message));
            let wanted = Wanted::new(&filters, 65_000).unwrap_or_else(|failure| panic!("{text}: {}", failure.message));
            assert_eq!(wanted.has(&build), fits, "{text}");
        }
        let refused = |text: &str| read(text).and_then(|filters| Wanted::new(&filters, 0).map(drop)).err();
        for (text, why) in [
            (r#"{"status":{"x":true}}"#, "invalid filter 'status=x'"),
            (r#"{"colour":{"red":true}}"#, "invalid filter 'colour'"),
            (r#"{"since":{"x":true}}"#, "failed to parse value as time or duration: \"x\""),
        ] {
            assert_eq!(refused(text).map(|failure| failure.message).as_deref(), Some(why));
        }
    }
}
