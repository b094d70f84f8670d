//! Builds and their clients when a gateway ends before them: its client's builds end too, wait a minute for a client that may
//! come back, or go on where nobody waits for them.

use std::sync::Arc;
use std::time::Duration;

use bus::{Target, calls};
use prost::Message as _;
use proto::Attendance;

use super::build_log::BuildLogReader;
use super::lease::Lease;
use super::registry::Credentials;
use super::{App, Failure, Outcome};

/// A client may take so long to come back.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A log that broke off is followed again after so long.
const AGAIN: Duration = Duration::from_secs(2);

/// A build that goes on without a client, and what is held for it.
pub struct Alone {
    pub id: String,
    pub log: BuildLogReader,
    /// Digest of the context.
    pub context: Option<String>,
    pub lease: Lease,
}

impl App {
    /// Sees to the builds whose gateway has ended before them.
    pub async fn end_orphans(&self) -> Outcome<()> {
        for build in self.db.cancel_orphans(PATIENCE.as_millis() as i64).await? {
            self.tell_build(&build.id, "cancelled", &[]);
            self.remember(&build.id);
            if !build.worker_id.is_empty() {
                let (bus, worker) = (self.bus.clone(), Target::Worker(build.worker_id));
                let request = proto::BuildCancel { build_id: build.id.clone() };
                // A worker that does not answer learns it when it renews its lease.
                tokio::spawn(async move { bus.call::<calls::BuildCancel>(&worker, &request).await });
            }
            self.end_build(&build.id, context_of(&build.options)).await;
        }
        let Some(app) = self.me.upgrade() else { return Ok(()) };
        for metadata::Adopted { id, options } in self.db.adopt_absent().await? {
            // The others are this gateway's, too, by now.
            if let Err(failure) = app.adopt(&id, context_of(&options)).await {
                tracing::warn!(%failure, build_id = id, "a build that goes on alone is not followed");
            }
        }
        Ok(())
    }

    /// Another gateway saw to this build until it ended.
    async fn adopt(self: &Arc<Self>, id: &str, context: Option<String>) -> Outcome<()> {
        let lease = self.lease("build").await?;
        if let Some(context) = &context {
            self.store.has(&context.parse()?, Some(&lease.id)).await?;
        }
        let log = self.follow_build_log(id).await?;
        tokio::spawn(self.clone().see_to_its_end(Alone { id: id.to_owned(), log, context, lease }));
        Ok(())
    }

    /// Waits for the end of a build that nobody waits for, and lets go of what was held for it.
    pub async fn see_to_its_end(self: Arc<Self>, build: Alone) {
        let Alone { id, mut log, context, lease } = build;
        while let Err(failure) = read_to_end(log).await {
            tracing::warn!(%failure, build_id = id, "the log of a build that goes on alone broke off");
            log = loop {
                tokio::time::sleep(AGAIN).await;
                match self.read_build_log(&id).await {
                    Ok(log) => break log,
                    // It is over, and forgotten.
                    Err(failure) if failure.kind == model::ErrorKind::NotFound => {
                        return self.end_build(&id, context).await;
                    }
                    Err(failure) => tracing::info!(%failure, build_id = id, "its log is not there yet"),
                }
            };
        }
        drop(lease);
        self.end_build(&id, context).await;
    }

    /// The client of a build comes back, with the session that it had: from now on its build is this gateway's. The
    /// digest of its context, where it has one.
    ///
    /// # Errors
    /// `Conflict` for a build that ends with its client's connection; `Denied` for another session than the build's;
    /// `Unavailable` where that is not open here.
    pub async fn come_back(&self, id: &str, session: &str, mut credentials: Credentials) -> Outcome<Option<String>> {
        let build = self.db.build(id).await?.ok_or_else(|| Failure::not_found(format!("no such build: {id}")))?;
        let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
        let context = options.context.as_ref().map(|context| context.digest.clone());
        if !matches!(build.state.as_str(), "waiting" | "running") {
            return Ok(context);
        }
        if options.attendance() != Attendance::Returning {
            return Err(Failure::conflict(format!("build {id} has no client that could come back")));
        }
        if options.session_id != session {
            return Err(Failure::new(model::ErrorKind::Denied, format!("build {id} has another session")));
        }
        if !session.is_empty() {
            self.session(session).await?;
            credentials.session = Some(session.to_owned());
        }
        super::lock(&self.build_credentials).insert(id.to_owned(), Arc::new(credentials));
        if !self.db.take_back(id).await? {
            super::lock(&self.build_credentials).remove(id);
        }
        Ok(context)
    }

    /// The client of a build has left this gateway: the build ends, unless its client has gone on through another one,
    /// whose affair the build is then.
    pub async fn client_left(&self, id: &str, context: Option<String>) {
        match self.db.session_of_build(id).await {
            Ok(Some(session)) if session != self.db.session() => self.forget_build_here(id),
            _ => {
                self.cancel_build(id).await;
                self.end_build(id, context).await;
            }
        }
    }

    /// What a build was asked with, and where its client's session is now.
    pub async fn options_of(&self, build: &metadata::Build) -> Outcome<proto::BuildOptions> {
        let mut options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
        if !options.session_id.is_empty() {
            options.session_gateway = self.db.session_of_build(&build.id).await?.unwrap_or_default();
        }
        Ok(options)
    }

    /// Where the session of a build's client is now.
    pub async fn session_lookup(
        &self,
        user: &str,
        request: proto::SessionLookup,
    ) -> Outcome<proto::SessionLookupReply> {
        self.held_by(user, &request.build_id, request.attempt).await?;
        let gateway = self.db.session_of_build(&request.build_id).await?.unwrap_or_default();
        Ok(proto::SessionLookupReply { gateway })
    }
}

/// # Errors
/// What keeps the rest of it from being read.
async fn read_to_end(mut log: BuildLogReader) -> Outcome<()> {
    while let Some(chunk) = log.next().await {
        chunk?;
    }
    Ok(())
}

fn context_of(options: &[u8]) -> Option<String> {
    let options = proto::BuildOptions::decode(options).unwrap_or_default();
    options.context.map(|context| context.digest)
}
