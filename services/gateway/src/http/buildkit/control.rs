use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1 as wire;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use bollard_buildkit_proto::pb;
use futures::Stream;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::bridge::results_of;
use super::failed::Failed;
use super::grpc::status_of;
use super::history::{self, Wanted};
use super::rounds::{AT_THE_SAME_TIME, Asked, Round, Rounds};
use super::solve::HOST_GATEWAY;
use super::{cache, run, tunnel};
use crate::app::build_log::BuildLogReader;
use crate::app::workers::Able;
use crate::app::{App, Outcome};
use crate::http::peer::UserName;
use crate::http::session::told;

type Statuses = mpsc::Sender<Result<wire::StatusResponse, Status>>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// BuildKit's Control service.
pub struct Control {
    pub app: Arc<App>,
    pub rounds: Arc<Rounds>,
}

#[tonic::async_trait]
impl wire::control_server::Control for Control {
    type PruneStream = Answers<wire::UsageRecord>;
    type StatusStream = Answers<wire::StatusResponse>;
    type SessionStream = Answers<wire::BytesMessage>;
    type ListenBuildHistoryStream = Answers<wire::BuildHistoryEvent>;

    /// With a frontend the build is run here. Without one the client builds by calls of `LLBBridge`, and this one
    /// answers when it has returned what came out.
    async fn solve(&self, request: Request<wire::SolveRequest>) -> Result<Response<wire::SolveResponse>, Status> {
        let user = request.extensions().get::<UserName>().map(|user| user.0.clone()).unwrap_or_default();
        let results = results_of(&request);
        let request = request.into_inner();
        if request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty()) {
            return Err(Status::unimplemented("LLB definitions are not solved: name the frontend dockerfile.v0"));
        }
        let held = self.rounds.begin(request, user).map_err(status_of)?;
        let round = held.round.clone();
        if round.request.frontend.is_empty() {
            returned(&round).await?;
        } else {
            let wire::SolveRequest { frontend, frontend_attrs, frontend_inputs, .. } = round.request.clone();
            let asked = Asked { frontend, attrs: frontend_attrs, inputs: frontend_inputs, is_named: false };
            round.build(&self.app, &results, asked).await.map_err(Failed::status)?;
        }
        Ok(Response::new(wire::SolveResponse { exporter_response: round.response() }))
    }

    /// What the builds of a round tell, from their beginning, until it is over; or what a build tells, or has told, that is
    /// remembered by this name.
    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let name = request.into_inner().r#ref;
        let (sender, answers) = mpsc::channel(64);
        let app = self.app.clone();
        let round = tokio::select! {
            biased;
            round = self.rounds.find(&name) => Some(round.map_err(status_of)?),
            () = remembered(&app, &name) => None,
        };
        tokio::spawn(async move {
            let told = match round {
                Some(round) => tell(&app, &round, &sender).await,
                None => tell_remembered(&app, &name, &sender).await,
            };
            if let Err(failure) = told {
                let _ = sender.send(Err(status_of(failure))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn list_workers(
        &self,
        _: Request<wire::ListWorkersRequest>,
    ) -> Result<Response<wire::ListWorkersResponse>, Status> {
        let record = worker_records(&self.app).await.map_err(status_of)?;
        Ok(Response::new(wire::ListWorkersResponse { record }))
    }

    async fn info(&self, _: Request<wire::InfoRequest>) -> Result<Response<wire::InfoResponse>, Status> {
        Ok(Response::new(wire::InfoResponse { buildkit_version: Some(version()) }))
    }

    async fn disk_usage(
        &self,
        request: Request<wire::DiskUsageRequest>,
    ) -> Result<Response<wire::DiskUsageResponse>, Status> {
        let wire::DiskUsageRequest { filter, age_limit } = request.into_inner();
        let record = cache::usage(&self.app, &filter, age_limit).await.map_err(status_of)?;
        Ok(Response::new(wire::DiskUsageResponse { record }))
    }

    async fn prune(&self, request: Request<wire::PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let pruned = cache::prune(&self.app, request.get_ref()).await.map_err(status_of)?;
        Ok(Response::new(Box::pin(futures::stream::iter(pruned.into_iter().map(Ok)))))
    }

    async fn session(
        &self,
        request: Request<Streaming<wire::BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (metadata, _, client) = request.into_parts();
        let told = told(&metadata.into_headers()).map_err(status_of)?;
        let opening = self.app.open_session(told).map_err(status_of)?;
        let (ours, answers) = tunnel::open(client);
        tokio::spawn(opening.serve(TokioIo::new(ours)));
        Ok(Response::new(answers))
    }

    async fn listen_build_history(
        &self,
        request: Request<wire::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let wanted = Wanted::new(request.into_inner()).map_err(status_of)?;
        let (sender, answers) = mpsc::channel(64);
        tokio::spawn(history::listen(self.app.clone(), wanted, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn update_build_history(
        &self,
        request: Request<wire::UpdateBuildHistoryRequest>,
    ) -> Result<Response<wire::UpdateBuildHistoryResponse>, Status> {
        history::update(&self.app, request.get_ref()).await.map_err(status_of)?;
        Ok(Response::new(wire::UpdateBuildHistoryResponse {}))
    }
}

/// Waits for what the client makes of its round.
async fn returned(round: &Round) -> Result<(), Status> {
    let mut returned = round.returned.subscribe();
    let outcome = returned.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
    outcome.unwrap_or(Ok(()))
}

async fn tell(app: &Arc<App>, round: &Round, sender: &Statuses) -> Outcome<()> {
    let mut builds = round.builds.subscribe();
    let mut told = 0;
    loop {
        let next = builds.borrow_and_update().get(told).cloned();
        let Some(id) = next else {
            tokio::select! {
                changed = builds.changed() => if changed.is_err() { return Ok(()) },
                () = round.over() => if builds.borrow().len() == told { return Ok(()) },
                () = sender.closed() => return Ok(()),
            }
            continue;
        };
        told += 1;
        if !tell_log(app.follow_build_log(&id).await?, sender).await? {
            return Ok(());
        }
    }
}

/// Returns when it turns out that a build of this name is remembered. A client that uses a name again asks for the status of
/// the round that it begins at the same time.
async fn remembered(app: &App, name: &str) {
    match app.db.build(name).await {
        Ok(Some(_)) => tokio::time::sleep(AT_THE_SAME_TIME).await,
        // The other way to find it says what went wrong.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

async fn tell_remembered(app: &Arc<App>, id: &str, sender: &Statuses) -> Outcome<()> {
    tell_log(app.read_build_log(id).await?, sender).await.map(drop)
}

/// Tells a log to its end; false where the client went before.
async fn tell_log(mut log: BuildLogReader, sender: &Statuses) -> Outcome<bool> {
    loop {
        let chunk = tokio::select! {
            chunk = log.next() => chunk,
            () = sender.closed() => return Ok(false),
        };
        let Some(chunk) = chunk.transpose()? else { return Ok(true) };
        if let Some(status) = chunk.what.and_then(run::status_of)
            && sender.send(Ok(status)).await.is_err()
        {
            return Ok(false);
        }
    }
}

/// The workers that are alive, as BuildKit tells of its own.
pub async fn worker_records(app: &App) -> Outcome<Vec<WorkerRecord>> {
    let mut workers = app.able_workers().await?;
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(workers.into_iter().filter(|worker| !worker.drained).map(record).collect())
}

/// What a worker's layers are unpacked by: from it clients know that an engine builds for several platforms, exports
/// archives and caches, and pushes by itself. And what `host-gateway` is.
const LABELS: [(&str, &str); 2] = [
    ("org.mobyproject.buildkit.worker.snapshotter", "overlayfs"),
    ("org.mobyproject.buildkit.worker.moby.host-gateway-ip", HOST_GATEWAY),
];

fn record(worker: Able) -> WorkerRecord {
    let platform = |platform: &model::Platform| pb::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        ..Default::default()
    };
    let mut platforms: Vec<pb::Platform> = Vec::new();
    for platform in worker.platforms.iter().map(platform) {
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    WorkerRecord {
        id: worker.id,
        labels: worker
            .labels
            .into_iter()
            .chain(LABELS.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect(),
        platforms,
        buildkit_version: Some(version()),
        ..Default::default()
    }
}

fn version() -> BuildkitVersion {
    let text = str::to_owned;
    BuildkitVersion { package: text("boxyard"), version: text(env!("CARGO_PKG_VERSION")), revision: String::new() }
}
