use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bus::{Target, calls};
use model::{ErrorKind, ImageRef, Platform};
use prost::Message as _;
use tokio::task::JoinHandle;

use super::images::message_of;
use super::pull::Wanted;
use super::registry::Credentials;
use super::{App, Failure, Outcome};

const LEASE_SECONDS: u32 = 15;
pub(super) const LEASE_MS: i64 = 15_000;
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Why a cancelled build failed, as its worker says it too.
const CANCELLED: &str = "the build was cancelled";
/// A step may be a whole script: so many characters of it are shown.
const SHOWN_STEP: usize = 200;
/// A build whose worker fell silent is looked for so often.
const LOOK: Duration = Duration::from_secs(5);

/// A worker gets the options in one message of the bus, which takes 1 MiB, with the likely keys beside them.
const OPTIONS_MAX_BYTES: usize = 768 << 10;

/// What a build's record says of its end.
pub enum Ended {
    Built { image_id: String },
    Failed { why: String, code: Option<i32> },
}

/// A build on its way into the queue. When this is dropped before it is there, the build ends as soon as it is.
struct Queueing {
    app: std::sync::Weak<App>,
    id: String,
    context: Option<String>,
    writing: Option<JoinHandle<Result<(), metadata::Error>>>,
}

impl Queueing {
    fn begin(app: &App, id: &str, options: &proto::BuildOptions) -> Self {
        let (db, queued, encoded) = (app.db.clone(), id.to_owned(), options.encode_to_vec());
        let demand = super::workers::demand_of(options);
        let writing = tokio::spawn(async move { db.queue_build(&queued, &encoded, &demand).await });
        let context = options.context.as_ref().map(|context| context.digest.clone());
        Self { app: app.me.clone(), id: id.to_owned(), context, writing: Some(writing) }
    }

    async fn end(mut self) -> Result<(), metadata::Error> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let written = writing.await;
        self.writing = None;
        written.unwrap_or_else(|error| Err(std::io::Error::other(error).into()))
    }
}

impl Drop for Queueing {
    fn drop(&mut self) {
        let (Some(writing), Some(app)) = (self.writing.take(), self.app.upgrade()) else { return };
        let (id, context) = (std::mem::take(&mut self.id), self.context.take());
        // At the end of a process its session ends, and the builds with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                match writing.await {
                    Ok(Ok(())) => {
                        app.cancel_build(&id).await;
                        app.end_build(&id, context).await;
                    }
                    _ => app.forget_build_here(&id),
                }
            });
        }
    }
}

impl App {
    /// The credentials stay here, for the images that the build pulls. Where the caller leaves before it knows that the
    /// build is queued, the build ends: nobody would hear of it.
    ///
    /// # Errors
    /// `AlreadyExists` for an id that a build has; `InvalidArgument` for options that no worker could be sent.
    pub async fn queue_build(
        &self,
        id: &str,
        options: &proto::BuildOptions,
        mut credentials: Credentials,
    ) -> Outcome<()> {
        fits_the_bus(options)?;
        credentials.session = Some(options.session_id.clone()).filter(|session| !session.is_empty());
        let is_taken = || Failure::new(ErrorKind::AlreadyExists, format!("build {id} exists"));
        if self.db.build(id).await?.is_some() {
            return Err(is_taken());
        }
        match super::lock(&self.build_credentials).entry(id.to_owned()) {
            Entry::Occupied(_) => return Err(is_taken()),
            Entry::Vacant(place) => drop(place.insert(Arc::new(credentials))),
        }
        if let Err(error) = Queueing::begin(self, id, options).end().await {
            super::lock(&self.build_credentials).remove(id);
            return Err(match error {
                metadata::Error::Taken(_) => is_taken(),
                error => error.into(),
            });
        }
        self.queued.notify_waiters();
        self.tell_build(id, "queued", &[]);
        Ok(())
    }

    /// Keeps what a build's log says of the step that begins ("Step 2/3 : RUN ...").
    pub fn note_step(&self, id: &str, text: &str) {
        if let Some(line) = text.lines().rfind(|line| line.starts_with("Step ")) {
            let shown = line.chars().take(SHOWN_STEP).collect();
            super::lock(&self.steps).insert(id.to_owned(), shown);
        }
    }

    pub fn step_of(&self, id: &str) -> Option<String> {
        super::lock(&self.steps).get(id).cloned()
    }

    /// An event of Boxyard's own API: Docker has none of builds.
    pub(super) fn tell_build(&self, id: &str, action: &str, more: &[(&str, &str)]) {
        let attributes = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        self.tell("build", action, id, attributes);
    }

    /// Held open until there is a build for this worker or its patience is over.
    pub async fn next_build(&self, request: proto::BuildNext) -> Outcome<proto::BuildLease> {
        let worker = request.worker.unwrap_or_default();
        let patience = Duration::from_secs(u64::from(request.wait_seconds)).min(MAX_WAIT);
        let until = tokio::time::Instant::now() + patience;
        loop {
            let queued = self.queued.notified();
            tokio::pin!(queued);
            queued.as_mut().enable();
            if let Some(leased) = self.lease_for(&worker).await? {
                let mut options = proto::BuildOptions::decode(leased.options.as_slice())
                    .map_err(|e| Failure::invalid(format!("options of build {}: {e}", leased.id)))?;
                if !options.session_id.is_empty() {
                    // Its client may have come back through another gateway meanwhile.
                    options.session_gateway = leased.gateway;
                }
                self.tell_build(&leased.id, "started", &[("worker", &worker.id)]);
                return Ok(proto::BuildLease {
                    build_id: leased.id,
                    attempt: u32::try_from(leased.attempt).unwrap_or(u32::MAX),
                    likely_keys: self.likely.keys(&options),
                    options: Some(options),
                    ttl_seconds: LEASE_SECONDS,
                });
            }
            let look = (tokio::time::Instant::now() + LOOK).min(until);
            tokio::select! {
                () = queued => {}
                () = tokio::time::sleep_until(look) => {
                    if look == until {
                        return Ok(proto::BuildLease::default());
                    }
                }
            }
        }
    }

    /// The first build in the queue that this worker may take.
    async fn lease_for(&self, worker: &proto::WorkerInfo) -> Outcome<Option<metadata::Leased>> {
        let waiting = self.db.waiting_builds().await?;
        if waiting.is_empty() {
            return Ok(None);
        }
        let able = self.able(worker).await?;
        for build in waiting {
            if self.may_take(&able, &build.demand).await?
                && let Some(leased) = self.db.lease_build(&build.id, &worker.id, LEASE_MS).await?
            {
                return Ok(Some(leased));
            }
        }
        Ok(None)
    }

    /// # Errors
    /// `Denied` for another worker's build.
    pub async fn renew_build(&self, user: &str, request: proto::BuildRenew) -> Outcome<proto::BuildRenewReply> {
        let proto::BuildRenew { build_id, attempt } = request;
        let held = match self.held_by(user, &build_id, attempt).await {
            Ok(_) => self.db.renew_build(&build_id, i64::from(attempt), LEASE_MS).await?,
            Err(failure) if failure.kind == ErrorKind::Conflict => false,
            Err(failure) => return Err(failure),
        };
        Ok(proto::BuildRenewReply { cancelled: !held })
    }

    /// An image for a build, which holds it from then on. One that is missing, or was made for another platform than
    /// the build wants, is pulled; so is every one where the build says so. The lines of a pull go to `progress`.
    ///
    /// # Errors
    /// As [`App::held_by`]; `NotFound` for an image that is not there; what a registry says.
    pub async fn resolve_image(
        &self,
        request: proto::ImageResolve,
        progress: &bus::ProgressSender,
    ) -> Outcome<proto::Image> {
        self.held_by(progress.caller().user(), &request.build_id, request.attempt).await?;
        let platform = (!request.platform.is_empty()).then(|| request.platform.parse::<Platform>()).transpose()?;
        if !request.pull {
            let found = self.hold_found(&request).await;
            match &found {
                Ok(image) if request.local || platform.as_ref().is_none_or(|platform| fits(platform, image)) => {
                    return found;
                }
                Err(failure) if request.local || failure.kind != ErrorKind::NotFound => return found,
                _ => {}
            }
        }
        let reference = request.reference.parse::<ImageRef>()?.or_latest();
        let auth = self.credentials_of(&request.build_id, reference.domain()).await?;
        let mut pulling = self.pull(Wanted { reference, platform, auth })?;
        while let Some(line) = pulling.next().await {
            progress.send(&proto::Progress { json: line?.to_string(), ..Default::default() }).await;
        }
        self.hold_found(&request).await
    }

    /// Finds an image for a build, which holds it from then on.
    async fn hold_found(&self, request: &proto::ImageResolve) -> Outcome<proto::Image> {
        loop {
            let platform = request.platform.parse::<Platform>().ok();
            let image = self.find_image_for(&request.reference, platform.as_ref()).await?;
            // Else it went in between: its name may mean another one now, or nothing.
            if self.db.hold_image(&request.build_id, &image.id).await? {
                return Ok(message_of(image));
            }
        }
    }

    /// A miss is an image without an id.
    ///
    /// # Errors
    /// As [`App::held_by`].
    pub async fn lookup_step(&self, user: &str, request: proto::StepLookup) -> Outcome<proto::Image> {
        self.held_by(user, &request.build_id, request.attempt).await?;
        let Some(id) = self.db.step(&request.key).await? else { return Ok(proto::Image::default()) };
        // A removal either sees that it is held, or has come first.
        if !self.db.hold_image(&request.build_id, &id).await? {
            return Ok(proto::Image::default());
        }
        let Some(image) = self.db.image(&id).await? else { return Ok(proto::Image::default()) };
        // The worker asks for each layer under its lease, and takes one that is gone for a miss.
        Ok(message_of(image))
    }

    /// # Errors
    /// As [`App::held_by`].
    pub async fn step_result(&self, user: &str, request: proto::StepResult) -> Outcome<proto::Empty> {
        self.held_by(user, &request.build_id, request.attempt).await?;
        let image = request.image.ok_or_else(|| Failure::invalid("a step without a result"))?;
        let id = image.id.clone();
        self.record_for(Some(&request.build_id), image).await?;
        if !request.key.is_empty() {
            self.db.record_step(&request.key, &id).await?;
        }
        Ok(proto::Empty {})
    }

    /// Was this attempt at a build given to the worker that has this name on the bus? An earlier attempt no longer is.
    pub async fn is_held_by(&self, user: &str, build_id: &str, attempt: u32) -> Outcome<bool> {
        let build = self.db.build(build_id).await?;
        Ok(build
            .is_some_and(|build| build.attempt == i64::from(attempt) && user == format!("worker-{}", build.worker_id)))
    }

    /// Was this attempt at a build ever given to the worker that has this name on the bus?
    pub async fn had(&self, user: &str, build_id: &str, attempt: u32) -> Outcome<bool> {
        let had = self.db.build_workers(build_id).await?;
        Ok(had.iter().any(|had| had.attempt == i64::from(attempt) && user == format!("worker-{}", had.worker_id)))
    }

    /// The build, for the worker that has this name on the bus: only who has a build speaks for it. Workers that help with
    /// its steps answer that one, and ask nothing in the build's name.
    ///
    /// # Errors
    /// `Conflict` when the build has another holder, or is over; `Denied` for another worker.
    pub(super) async fn held_by(&self, user: &str, build_id: &str, attempt: u32) -> Outcome<metadata::Build> {
        let build = self.db.build(build_id).await?;
        let held = build.filter(|build| build.state == "running" && build.attempt == i64::from(attempt));
        let build = held.ok_or_else(|| Failure::conflict(format!("build {build_id} is no longer this worker's")))?;
        if user != format!("worker-{}", build.worker_id) {
            tracing::warn!(user, build_id, attempt, "a build was spoken for without having it");
            return Err(Failure::new(ErrorKind::Denied, format!("build {build_id} is not {user}'s")));
        }
        Ok(build)
    }

    pub async fn finish_build(&self, user: &str, request: proto::BuildFinish) -> Outcome<proto::BuildFinishReply> {
        let build = match self.held_by(user, &request.build_id, request.attempt).await {
            Err(failure) if failure.kind == ErrorKind::Conflict => {
                let finished = self.finished_so(&request).await?.ok_or(failure)?;
                // The worker has not heard that it is done.
                return Ok(proto::BuildFinishReply { tagged: tags_of(&finished, &request.image_id)? });
            }
            held => held?,
        };
        let tagged = tags_of(&build, &request.image_id)?;
        if !request.image_id.is_empty() {
            let image = self.find_image(&request.image_id).await?;
            for tag in &tagged {
                self.point_tag(&image, tag).await?;
            }
        }
        let code = i64::from(request.error_code);
        let attempt = i64::from(request.attempt);
        if self.db.finish_build(&request.build_id, attempt, &request.image_id, &request.error, code).await? {
            match request.error.is_empty() {
                false => self.tell_build(&request.build_id, "failed", &[]),
                true if request.image_id.is_empty() => self.tell_build(&request.build_id, "done", &[]),
                true => self.tell_build(&request.build_id, "done", &[("image", &request.image_id)]),
            }
            self.remember(&request.build_id);
        }
        Ok(proto::BuildFinishReply { tagged })
    }

    async fn finished_so(&self, request: &proto::BuildFinish) -> Outcome<Option<metadata::Build>> {
        Ok(self.db.build(&request.build_id).await?.filter(|build| {
            matches!(build.state.as_str(), "done" | "failed")
                && build.attempt == i64::from(request.attempt)
                && (&build.image_id, &build.error) == (&request.image_id, &request.error)
        }))
    }

    /// Lets go of what the build held: its images, and the context unless another build has the same.
    pub async fn end_build(&self, id: &str, context: Option<String>) {
        self.forget_build_here(id);
        if let Err(error) = self.db.release_images(id).await {
            // They are let go of when somebody wants to remove them, since the build is over.
            tracing::warn!(%error, build_id = id, "a build's images are held on");
        }
        if let Some(digest) = context {
            self.release_blobs(vec![digest]).await;
        }
    }

    /// What only this gateway knows of a build.
    pub(super) fn forget_build_here(&self, id: &str) {
        super::lock(&self.steps).remove(id);
        super::lock(&self.build_credentials).remove(id);
    }

    /// The client went away.
    pub async fn cancel_build(&self, id: &str) {
        let cancelled = self.db.cancel_build(id).await;
        self.tell_if_cancelled(id).await;
        match cancelled {
            Ok(Some(worker)) => {
                let request = proto::BuildCancel { build_id: id.to_owned() };
                // A worker that does not answer learns it when it renews its lease.
                let _ = self.bus.call::<calls::BuildCancel>(&Target::Worker(worker), &request).await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, build_id = id, "a build could not be cancelled"),
        }
    }

    /// A build that had ended before is not cancelled.
    async fn tell_if_cancelled(&self, id: &str) {
        if let Ok(Some(build)) = self.db.build(id).await
            && build.state == "cancelled"
        {
            self.tell_build(id, "cancelled", &[]);
            self.remember(id);
        }
    }

    /// How a build ended that no log tells of: the end of the log was lost, or every worker that had it died.
    pub async fn how_ended(&self, id: &str) -> Option<Ended> {
        let build = self.db.build(id).await.ok()??;
        match build.state.as_str() {
            "done" => return Some(Ended::Built { image_id: build.image_id }),
            "failed" => {
                let code = i32::try_from(build.error_code).unwrap_or_default();
                return Some(Ended::Failed { why: build.error, code: Some(code) });
            }
            "cancelled" => {
                let why = if build.error.is_empty() { CANCELLED.to_owned() } else { build.error };
                return Some(Ended::Failed { why, code: None });
            }
            _ => {}
        }
        if build.state != "running" || build.attempt < metadata::MAX_ATTEMPTS {
            return None;
        }
        let had = self.db.build_workers(id).await.ok()?;
        let names: Vec<String> = had.into_iter().map(|attempt| attempt.worker_id).collect();
        let why =
            format!("the build was given up: {} workers in a row were lost with it: {}", names.len(), names.join(", "));
        if !self.db.give_up_build(id, LEASE_MS, &why).await.ok()? {
            return None;
        }
        self.tell_build(id, "failed", &[]);
        self.remember(id);
        Some(Ended::Failed { why, code: None })
    }

    /// Which of these blobs are still named?
    pub async fn in_use(&self, request: proto::BlobsInUse) -> Outcome<proto::BlobsInUseReply> {
        let used = self.blobs_in_use().await?;
        let digests = request.digests.into_iter().filter(|digest| used.contains(digest)).collect();
        Ok(proto::BlobsInUseReply { digests })
    }

    /// The classic builder's parents, nearest first.
    pub async fn ancestors(&self, image: &metadata::Image) -> Outcome<Vec<metadata::Image>> {
        let mut ancestors = Vec::new();
        let mut next = image.parent_id.clone();
        while !next.is_empty() && ancestors.len() < 1000 {
            let Some(parent) = self.db.image(&next).await? else { break };
            next.clone_from(&parent.parent_id);
            ancestors.push(parent);
        }
        Ok(ancestors)
    }
}

/// The names that the image of a build gets; none where it has made none.
fn tags_of(build: &metadata::Build, image_id: &str) -> Outcome<Vec<String>> {
    if image_id.is_empty() {
        return Ok(Vec::new());
    }
    let options = proto::BuildOptions::decode(build.options.as_slice()).unwrap_or_default();
    options.tags.iter().map(|tag| Ok(tag.parse::<ImageRef>()?.or_latest().familiar())).collect()
}

/// Options that cannot be sent would cost the build one worker after the other.
///
/// # Errors
/// `InvalidArgument`.
fn fits_the_bus(options: &proto::BuildOptions) -> Outcome<()> {
    let bytes = options.encoded_len();
    if bytes <= OPTIONS_MAX_BYTES {
        return Ok(());
    }
    Err(Failure::invalid(format!(
        "the build's options take {bytes} bytes, more than the {OPTIONS_MAX_BYTES} that a worker can be sent: arguments, \
         labels and the configs of images that other targets made count"
    )))
}

fn fits(wanted: &Platform, image: &proto::Image) -> bool {
    let config = serde_json::from_slice(&image.config).unwrap_or_default();
    wanted.takes(&super::platform::of_image(&config))
}

/// All labels of an image's config.
pub fn labels_of(config: &serde_json::Value) -> serde_json::Map<String, serde_json::Value> {
    config.pointer("/config/Labels").and_then(serde_json::Value::as_object).cloned().unwrap_or_default()
}

/// The value of an image config's label.
pub fn label_of<'a>(config: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    config.pointer("/config/Labels")?.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_no_worker_can_be_sent_are_refused() {
        let result = |bytes: usize| proto::BuiltImage {
            image: Some(proto::Image { config: vec![b' '; bytes], ..Default::default() }),
            ..Default::default()
        };
        let options = |results: Vec<proto::BuiltImage>| proto::BuildOptions {
            contexts: vec![proto::NamedContext { results, ..Default::default() }],
            ..Default::default()
        };
        assert!(fits_the_bus(&options(vec![result(OPTIONS_MAX_BYTES - 100)])).is_ok());
        for results in [vec![result(OPTIONS_MAX_BYTES)], vec![result(OPTIONS_MAX_BYTES / 2); 2]] {
            let why = fits_the_bus(&options(results)).expect_err("too large");
            assert_eq!(why.kind, ErrorKind::InvalidArgument);
            assert!(why.message.contains("more than the 786432 that a worker can be sent"), "{}", why.message);
        }
    }
}
