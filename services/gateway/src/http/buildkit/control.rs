use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1 as wire;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, WorkerRecord};
use bollard_buildkit_proto::pb;
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::grpc::status_of;
use super::rounds::{Round, Rounds};
use super::run;
use crate::app::workers::Able;
use crate::app::{App, Outcome};
use crate::http::peer::UserName;

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
        let request = request.into_inner();
        if request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty()) {
            return Err(Status::unimplemented("LLB definitions are not solved: name the frontend dockerfile.v0"));
        }
        let held = self.rounds.begin(request, user).map_err(status_of)?;
        let round = held.round.clone();
        if round.request.frontend.is_empty() {
            returned(&round).await.map_err(status_of)?;
        } else {
            let (frontend, attrs) = (&round.request.frontend, round.request.frontend_attrs.clone());
            round.build(&self.app, frontend, attrs).await.map_err(status_of)?;
        }
        Ok(Response::new(wire::SolveResponse { exporter_response: round.response() }))
    }

    /// What the builds of a round tell, from their beginning, until it is over.
    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let round = self.rounds.find(&request.get_ref().r#ref).await.map_err(status_of)?;
        let (sender, answers) = mpsc::channel(64);
        let app = self.app.clone();
        tokio::spawn(async move {
            if let Err(failure) = tell(&app, &round, &sender).await {
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
        _: Request<wire::DiskUsageRequest>,
    ) -> Result<Response<wire::DiskUsageResponse>, Status> {
        Err(Status::unimplemented("the cache is listed by GET /system/df"))
    }

    async fn prune(&self, _: Request<wire::PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        Err(Status::unimplemented("the cache is pruned by POST /build/prune"))
    }

    async fn session(
        &self,
        _: Request<Streaming<wire::BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("a session is opened by POST /session"))
    }

    async fn listen_build_history(
        &self,
        _: Request<wire::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("builds are listed by GET /boxyard/v1/builds"))
    }

    async fn update_build_history(
        &self,
        _: Request<wire::UpdateBuildHistoryRequest>,
    ) -> Result<Response<wire::UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented("builds are kept by GET /boxyard/v1/builds"))
    }
}

/// Waits for what the client makes of its round.
async fn returned(round: &Round) -> Outcome<()> {
    let mut returned = round.returned.subscribe();
    let outcome = returned.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
    outcome.unwrap_or(Ok(()))
}

async fn tell(
    app: &Arc<App>,
    round: &Round,
    sender: &mpsc::Sender<Result<wire::StatusResponse, Status>>,
) -> Outcome<()> {
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
        let mut log = app.follow_build_log(&id).await?;
        loop {
            let chunk = tokio::select! {
                chunk = log.next() => chunk,
                () = sender.closed() => return Ok(()),
            };
            let Some(chunk) = chunk.transpose()? else { break };
            if let Some(status) = chunk.what.and_then(run::status_of)
                && sender.send(Ok(status)).await.is_err()
            {
                return Ok(());
            }
        }
    }
}

/// The workers that are alive, as BuildKit tells of its own.
pub async fn worker_records(app: &App) -> Outcome<Vec<WorkerRecord>> {
    let mut workers = app.able_workers().await?;
    workers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(workers.into_iter().filter(|worker| !worker.drained).map(record).collect())
}

/// Without the label of a snapshotter, by which clients would take it for containerd's image store.
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
        labels: worker.labels.into_iter().collect::<HashMap<_, _>>(),
        platforms,
        buildkit_version: Some(version()),
        ..Default::default()
    }
}

fn version() -> BuildkitVersion {
    let text = str::to_owned;
    BuildkitVersion { package: text("boxyard"), version: text(env!("CARGO_PKG_VERSION")), revision: String::new() }
}
