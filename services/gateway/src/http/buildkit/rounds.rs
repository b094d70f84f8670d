use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as wire;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::Ref;
use bollard_buildkit_proto::pb;
use model::ErrorKind;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::failed::Failed;
use super::results::{Input, Results};
use super::run::{Build, Told};
use super::solve::Solve;
use crate::app::lease::Lease;
use crate::app::{App, Failure, Outcome, lock};

/// A client asks for a round's status at the same time as it begins it.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client that holds no round of a result any more may have builds to come that stand on it.
const RESULTS_STAY: Duration = Duration::from_secs(600);
/// So much later than what the client asks beside it a round may begin that has the name of an earlier one.
pub const AT_THE_SAME_TIME: Duration = Duration::from_millis(500);
/// Begins the URL of a context that the session sends in one piece.
const UPLOADS: &str = "http://buildkit-session";
/// BuildKit's own names have 25 digits and letters.
const MIN_NAME: usize = 16;
const MAX_NAME: usize = 64;
/// The frontends that the graph builder is.
const DOCKERFILE: &str = "dockerfile.v0";
const GATEWAY: &str = "gateway.v0";

/// Calls of `Control/Solve` that go on, by the client's name for each (`Ref`). What the client asks beside it names the
/// same round.
#[derive(Default)]
pub struct Rounds {
    by_ref: Mutex<HashMap<String, Arc<Round>>>,
    begun: Notify,
}

pub struct Round {
    pub request: wire::SolveRequest,
    user: String,
    /// Ids of the builds that were begun for it.
    pub builds: watch::Sender<Vec<String>>,
    /// What the client has made of it: its own error, or the ids of images.
    pub returned: watch::Sender<Option<Result<(), Status>>>,
    built: Mutex<Built>,
    kept: Mutex<Vec<Kept>>,
    over: CancellationToken,
}

/// What later builds of a connection may name, by the client's names for each.
struct Kept {
    results: Weak<Results>,
    ids: Vec<String>,
}

/// What a build has made.
#[derive(Clone, Default)]
pub struct Built {
    /// Empty where no image was asked for.
    pub image_id: String,
    /// What the exporters, or a request about the Dockerfile, answer.
    pub response: HashMap<String, String>,
    /// One image for each platform, with what the client calls it; none for a request about the Dockerfile, or
    /// where nobody can name them. An image that the log did not tell is empty.
    pub results: Vec<(proto::BuiltImage, Ref)>,
}

/// What a frontend is asked for.
pub struct Asked {
    pub frontend: String,
    pub attrs: HashMap<String, String>,
    /// By the names that `attrs` have for them.
    pub inputs: HashMap<String, pb::Definition>,
    /// What is built may be named as an input of later builds.
    pub is_named: bool,
}

/// Holds a round; when it is dropped, the round is over and its builds are cancelled.
pub struct Holding {
    rounds: Arc<Rounds>,
    pub round: Arc<Round>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.round.over.cancel();
        // A client may ask for the status of a round that has been short.
        let (rounds, round) = (self.rounds.clone(), self.round.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(PATIENCE).await;
                rounds.forget(&round);
                tokio::time::sleep(RESULTS_STAY).await;
                round.forget_results();
            });
        }
    }
}

impl Rounds {
    /// # Errors
    /// `AlreadyExists` for a name that is in use.
    pub fn begin(self: &Arc<Self>, request: wire::SolveRequest, user: String) -> Outcome<Holding> {
        let mut rounds = lock(&self.by_ref);
        if rounds.get(&request.r#ref).is_some_and(|other| !other.is_over()) {
            return Err(Failure::new(ErrorKind::AlreadyExists, format!("job ID {} exists", request.r#ref)));
        }
        let round = Arc::new(Round {
            user,
            builds: watch::Sender::default(),
            returned: watch::Sender::default(),
            built: Mutex::default(),
            kept: Mutex::default(),
            over: CancellationToken::new(),
            request,
        });
        rounds.insert(round.request.r#ref.clone(), round.clone());
        self.begun.notify_waiters();
        Ok(Holding { rounds: self.clone(), round })
    }

    fn forget(&self, round: &Arc<Round>) {
        let mut rounds = lock(&self.by_ref);
        let name = &round.request.r#ref;
        // Another one may have the name by now.
        if rounds.get(name).is_some_and(|other| Arc::ptr_eq(other, round)) {
            rounds.remove(name);
        }
    }

    /// The round of that name, which may be about to begin; one that is over where no other begins.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn find(&self, name: &str) -> Outcome<Arc<Round>> {
        let known = || lock(&self.by_ref).get(name).cloned();
        let earlier = known();
        // One that has begun meanwhile may be over already.
        let is_meant = |round: &Arc<Round>| {
            !round.is_over() || !earlier.as_ref().is_some_and(|earlier| Arc::ptr_eq(earlier, round))
        };
        let wait = async {
            loop {
                let begun = self.begun.notified();
                tokio::pin!(begun);
                begun.as_mut().enable();
                if let Some(round) = known().filter(is_meant) {
                    return round;
                }
                begun.await;
            }
        };
        let patience = if earlier.is_some() { AT_THE_SAME_TIME } else { PATIENCE };
        match tokio::time::timeout(patience, wait).await {
            Ok(round) => Ok(round),
            Err(_) => known().ok_or_else(|| Failure::not_found(format!("no such job {name}"))),
        }
    }
}

impl Round {
    /// Builds by a frontend, to the end.
    ///
    /// # Errors
    /// Why the build failed; `Cancelled` when the round is over first.
    pub async fn build(&self, app: &Arc<App>, results: &Arc<Results>, asked: Asked) -> Result<Built, Failed> {
        let Asked { frontend, mut attrs, inputs, is_named } = asked;
        is_built_in(&frontend, &attrs)?;
        let inputs = results.inputs(&inputs)?;
        let brought = match attrs.get("context").and_then(|context| upload_of(context)) {
            Some(path) => Some(app.pull_upload(&self.request.session, path).await?),
            None => None,
        };
        if brought.is_some() {
            attrs.remove("context");
        }
        let solve = Solve {
            attrs,
            exporters: exporters(&self.request),
            cache: self.request.cache.clone().unwrap_or_default(),
            session: self.request.session.clone(),
            entitlements: self.request.entitlements.clone(),
            context: brought.as_ref().map(|brought| brought.context.clone()),
            user: self.user.clone(),
            inputs,
        };
        let mut options = solve.options(app)?;
        let kept = match is_named && options.check.is_empty() {
            true => Some(app.lease("what a build has made").await?),
            false => None,
        };
        options.result_lease = kept.as_ref().map(|lease| lease.id.clone()).unwrap_or_default();
        let lease = brought.map(|brought| brought.lease);
        let (image_id, response, made) = self.run(app, &options, lease).await?;
        let results = kept.map(|lease| self.keep(results, made, lease)).unwrap_or_default();
        let built = Built { image_id, response, results };
        lock(&self.built).clone_from(&built);
        Ok(built)
    }

    /// What is told of a file of an earlier result, or of a source ([`proto::LookAt`]).
    ///
    /// # Errors
    /// What keeps it from being read.
    pub async fn look_at(
        &self,
        app: &Arc<App>,
        input: Input,
        wanted: proto::LookAt,
    ) -> Result<HashMap<String, String>, Failed> {
        let options = proto::BuildOptions {
            graph: true,
            remove: true,
            contexts: vec![input.context()],
            look_at: Some(wanted),
            session_id: self.request.session.clone(),
            session_gateway: app.db.session().to_owned(),
            user: self.user.clone(),
            ..Default::default()
        };
        self.run(app, &options, None).await.map(|(_, response, _)| response)
    }

    /// A build to its end: the image's id, what is answered, and what was built.
    async fn run(
        &self,
        app: &Arc<App>,
        options: &proto::BuildOptions,
        lease: Option<Lease>,
    ) -> Result<(String, HashMap<String, String>, Vec<proto::BuiltImage>), Failed> {
        let mut build = Build::begin(app, options, (self.free_name(), lease)).await?;
        self.builds.send_modify(|builds| builds.push(build.id.clone()));
        loop {
            let told = tokio::select! {
                told = build.next() => told,
                () = self.over.cancelled() => {
                    return Err(Failure::new(ErrorKind::Cancelled, "context canceled").into());
                }
            };
            match told {
                // Who wants to know reads the log.
                Some(Told::Status(_)) => {}
                Some(Told::Built { image_id, response, results }) => return Ok((image_id, response, results)),
                Some(Told::Failed(failed)) => return Err(failed),
                None => return Err(Failure::new(ErrorKind::Internal, "the build has no end").into()),
            }
        }
    }

    /// Keeps what a build has made until some time after the round; gives what the client calls each. The build is done even
    /// where its log did not tell what it has made.
    fn keep(
        &self,
        results: &Arc<Results>,
        made: Vec<proto::BuiltImage>,
        lease: Lease,
    ) -> Vec<(proto::BuiltImage, Ref)> {
        let named: Vec<_> = match made.is_empty() {
            true => vec![(proto::BuiltImage::default(), results.keep_untold())],
            false => {
                let refs = results.keep(&made, lease);
                made.into_iter().zip(refs).collect()
            }
        };
        let ids = named.iter().map(|(_, name)| name.id.clone()).collect();
        lock(&self.kept).push(Kept { results: Arc::downgrade(results), ids });
        named
    }

    /// As [`Results::name`], until some time after the round.
    pub fn name(&self, results: &Arc<Results>, definition: pb::Definition) -> Outcome<Ref> {
        let named = results.name(definition)?;
        lock(&self.kept).push(Kept { results: Arc::downgrade(results), ids: vec![named.id.clone()] });
        Ok(named)
    }

    fn forget_results(&self) {
        for Kept { results, ids } in std::mem::take(&mut *lock(&self.kept)) {
            if let Some(results) = results.upgrade() {
                results.forget(&ids);
            }
        }
    }

    /// The client's name for the round, which its first build gets: the client asks for it by that name afterwards.
    fn free_name(&self) -> Option<&str> {
        let name = self.request.r#ref.as_str();
        // It becomes a part of the bus' subjects and of folders' names.
        let is_plain = |name: &str| name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'));
        let fits = (MIN_NAME..=MAX_NAME).contains(&name.len()) && is_plain(name);
        (fits && self.builds.borrow().is_empty()).then_some(name)
    }

    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Returns when the round is over.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// What the exporters tell. An image that was not pushed is called by its id.
    pub fn response(&self) -> HashMap<String, String> {
        let Built { image_id: id, mut response, .. } = lock(&self.built).clone();
        if !id.is_empty() {
            for key in ["containerimage.digest", "containerimage.config.digest"] {
                response.entry(key.to_owned()).or_insert_with(|| id.clone());
            }
        }
        let names = exporters(&self.request).into_iter().find_map(|mut exporter| exporter.attrs.remove("name"));
        if let Some(names) = names.filter(|_| !id.is_empty()) {
            response.entry("image.name".to_owned()).or_insert(names);
        }
        response
    }
}

/// The path of a context that the session sends in one piece; none for a URL of another host.
fn upload_of(context: &str) -> Option<&str> {
    context.strip_prefix(UPLOADS).filter(|path| path.starts_with('/'))
}

/// Newer clients say a list, older ones one exporter.
fn exporters(request: &wire::SolveRequest) -> Vec<wire::Exporter> {
    if !request.exporters.is_empty() || request.exporter_deprecated.is_empty() {
        return request.exporters.clone();
    }
    let attrs = request.exporter_attrs_deprecated.clone();
    vec![wire::Exporter { r#type: request.exporter_deprecated.clone(), attrs }]
}

/// Images that hold BuildKit's Dockerfile frontend name what is built in here.
fn is_built_in(frontend: &str, attrs: &HashMap<String, String>) -> Outcome<()> {
    let source = attrs.get("source").map(String::as_str).unwrap_or_default();
    let source = source.strip_prefix("docker.io/").unwrap_or(source);
    let name = source.split_once([':', '@']).map_or(source, |(name, _)| name);
    match (frontend, name) {
        (DOCKERFILE, _) | (GATEWAY, "docker/dockerfile" | "docker/dockerfile-upstream") => Ok(()),
        (GATEWAY, _) => {
            Err(Failure::not_built(format!("the frontend {source} is not built in: only Dockerfiles are built")))
        }
        ("", _) => Err(Failure::not_built("LLB definitions are not solved: name the frontend dockerfile.v0")),
        _ => Err(Failure::not_found(format!("frontend {frontend} not found"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends() {
        for (frontend, source, taken) in [
            ("dockerfile.v0", "", true),
            ("gateway.v0", "docker/dockerfile:1", true),
            ("gateway.v0", "docker.io/docker/dockerfile@sha256:a", true),
            ("gateway.v0", "else/frontend:1", false),
            ("", "", false),
            ("other.v0", "", false),
        ] {
            let attrs = HashMap::from([("source".to_owned(), source.to_owned())]);
            assert_eq!(is_built_in(frontend, &attrs).is_ok(), taken, "{frontend} {source}");
        }
    }

    #[test]
    fn uploads_are_of_the_sessions_host() {
        for (context, path) in [
            ("http://buildkit-session/abc", Some("/abc")),
            ("http://buildkit-session.example.org/abc.tar", None),
            ("http://buildkit-session", None),
            ("https://buildkit-session/abc", None),
        ] {
            assert_eq!(upload_of(context), path, "{context}");
        }
    }

    #[test]
    fn exporters_of_old_and_new_clients() {
        let old = wire::SolveRequest { exporter_deprecated: "moby".to_owned(), ..Default::default() };
        assert_eq!(exporters(&old).len(), 1);
        let new = wire::SolveRequest { exporters: vec![Default::default(); 2], ..old };
        assert_eq!(exporters(&new).len(), 2);
        assert!(exporters(&wire::SolveRequest::default()).is_empty(), "only the cache is warmed");
    }

    #[tokio::test]
    async fn a_round_lets_go_of_its_own_results() {
        let (rounds, results) = (Arc::new(Rounds::default()), Arc::<Results>::default());
        let held = rounds.begin(wire::SolveRequest::default(), String::new()).expect("begun");
        let (own, others) = (results.keep_untold().id, results.keep_untold().id);
        let closed = Arc::downgrade(&Arc::<Results>::default());
        for results in [closed, Arc::downgrade(&results)] {
            lock(&held.round.kept).push(Kept { results, ids: vec![own.clone()] });
        }
        assert!(results.holds(&own));
        held.round.forget_results();
        assert_eq!((results.holds(&own), results.holds(&others)), (false, true));
    }

    #[tokio::test]
    async fn a_round_may_be_found_before_it_begins_and_ends_with_its_holder() {
        let rounds = Arc::new(Rounds::default());
        let (waiting, request) = (rounds.clone(), wire::SolveRequest { r#ref: "a".to_owned(), ..Default::default() });
        let found = tokio::spawn(async move { waiting.find("a").await });
        tokio::task::yield_now().await;
        let held = rounds.begin(request.clone(), String::new()).expect("begun");
        let found = found.await.expect("joined").expect("found");
        assert_eq!(found.request.r#ref, "a");
        assert!(rounds.begin(request.clone(), String::new()).is_err(), "its name is in use");
        drop(held);
        found.over().await;
        assert!(rounds.find("a").await.expect("it was short").is_over());
        let waiting = rounds.clone();
        let again = tokio::spawn(async move { waiting.find("a").await });
        tokio::task::yield_now().await;
        let _held = rounds.begin(request, String::new()).expect("its name is free");
        assert!(!again.await.expect("joined").expect("found").is_over(), "the later one is meant");
        let waiting = rounds.clone();
        let short = tokio::spawn(async move { waiting.find("b").await });
        tokio::task::yield_now().await;
        let request = wire::SolveRequest { r#ref: "b".to_owned(), ..Default::default() };
        drop(rounds.begin(request, String::new()).expect("begun"));
        let found = tokio::time::timeout(PATIENCE / 2, short).await.expect("it is not waited for another one");
        assert!(found.expect("joined").expect("found").is_over());
    }
}
