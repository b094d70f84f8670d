//! The calls of buildx' docker driver, in its order.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as bridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use hyper_util::rt::TokioIo;
use kit::session::hand_over;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::session::{self, Offered};

/// How a connection for gRPC is made.
#[derive(Clone, Copy, Debug)]
pub enum Door {
    HandedOver,
    Straight,
}

async fn connect(socket: &Path, door: Door) -> Channel {
    let stream = match door {
        Door::HandedOver => hand_over(socket, "/grpc", "").await,
        Door::Straight => UnixStream::connect(socket).await.expect("connected"),
    };
    let once = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().expect("no holder panics").take();
        async move { stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("the one connection is gone")) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.expect("gRPC")
}

#[derive(Clone)]
pub struct Client {
    pub control: ControlClient<Channel>,
    pub bridge: LlbBridgeClient<Channel>,
}

/// What a build is asked for.
#[derive(Default)]
pub struct Asked {
    /// BuildKit's own have 25 letters and digits.
    pub name: String,
    pub frontend: Vec<(&'static str, String)>,
    pub exporters: Vec<control::Exporter>,
}

/// How a build went.
pub struct Ended {
    pub response: Result<control::SolveResponse, Status>,
    /// Names of the steps that were told.
    pub steps: Vec<String>,
}

impl Ended {
    #[track_caller]
    pub fn told(self, key: &str) -> String {
        let response = self.response.expect("built").exporter_response;
        response.get(key).unwrap_or_else(|| panic!("no {key} in {response:?}")).clone()
    }
}

pub fn exporter(kind: &str, attrs: &[(&str, &str)]) -> control::Exporter {
    let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    control::Exporter { r#type: kind.to_owned(), attrs }
}

/// A message of the bridge, with the round that it belongs to.
pub fn in_round<T>(round: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", round.parse().expect("plain"));
    request
}

pub fn request(round: &str, session: &str, image: Option<&str>) -> control::SolveRequest {
    let exporters = image.map(|image| exporter("moby", &[("name", image)])).into_iter().collect();
    control::SolveRequest { r#ref: round.to_owned(), session: session.to_owned(), exporters, ..Default::default() }
}

impl Client {
    pub async fn connect(socket: &Path, door: Door) -> Self {
        let channel = connect(socket, door).await;
        Self { control: ControlClient::new(channel.clone()), bridge: LlbBridgeClient::new(channel) }
    }

    /// One round: Status and Solve at once, a ping, what `frontend_opt` builds (none: nothing is built), and its return.
    pub async fn round(
        &mut self,
        request: control::SolveRequest,
        frontend_opt: Option<&[(&'static str, String)]>,
    ) -> Ended {
        let name = request.r#ref.clone();
        let status = tokio::spawn(steps(self.clone(), name.clone()));
        let mut of_solve = self.control.clone();
        // It ends with this round.
        let mut solve = tokio::task::JoinSet::new();
        solve.spawn(async move { of_solve.solve(request).await });
        let pong = self.bridge.ping(in_round(&name, bridge::PingRequest {})).await.expect("a pong").into_inner();
        assert!(pong.frontend_api_caps.iter().any(|cap| cap.id == "return" && cap.enabled));
        assert_eq!(pong.workers.len(), 1);
        let mut returned = bridge::ReturnRequest { result: Some(bridge::Result::default()), error: None };
        if let Some(options) = frontend_opt {
            let asked = bridge::SolveRequest {
                frontend: "dockerfile.v0".to_owned(),
                frontend_opt: options.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
                allow_result_return: true,
                allow_result_array_ref: true,
                ..Default::default()
            };
            match self.bridge.solve(in_round(&name, asked)).await {
                Ok(solved) => returned.result = solved.into_inner().result,
                Err(status) => returned = bridge::ReturnRequest { result: None, error: Some(returned_error(&status)) },
            }
        }
        self.bridge.r#return(in_round(&name, returned)).await.expect("returned");
        let solved = tokio::time::timeout(Duration::from_secs(60), solve.join_next()).await.expect("answered");
        let solved = solved.expect("it was begun").expect("joined");
        let steps = tokio::time::timeout(Duration::from_secs(60), status).await.expect("ended").expect("joined");
        Ended { response: solved.map(Response::into_inner), steps }
    }

    /// A whole build as buildx has it: workers, a round that builds nothing, and the one that builds.
    pub async fn build(&mut self, session: &str, asked: Asked) -> Ended {
        let workers = self.control.list_workers(control::ListWorkersRequest::default()).await.expect("workers");
        let workers = workers.into_inner().record;
        assert!(workers.len() == 1 && workers[0].platforms[0].os == "linux", "{workers:?}");
        assert!(workers[0].labels.contains_key("org.mobyproject.buildkit.worker.snapshotter"), "{workers:?}");
        let probed = self.round(request(&format!("{}probe", asked.name), "", None), None).await;
        let answer = probed.response.expect("nothing to build");
        assert!(answer.exporter_response.is_empty() && probed.steps.is_empty());
        let wanted = control::SolveRequest { exporters: asked.exporters, ..request(&asked.name, session, None) };
        self.round(wanted, Some(&asked.frontend)).await
    }

    /// Records of builds, as `docker buildx history ls` asks for them.
    pub async fn history(&mut self, name: &str, filter: &[&str]) -> Vec<control::BuildHistoryEvent> {
        let wanted = control::BuildHistoryRequest {
            early_exit: true,
            r#ref: name.to_owned(),
            filter: filter.iter().map(|text| (*text).to_owned()).collect(),
            limit: 50,
            ..Default::default()
        };
        let mut events = self.control.listen_build_history(wanted).await.expect("listed").into_inner();
        let mut all = Vec::new();
        while let Some(event) = events.message().await.expect("an event") {
            all.push(event);
        }
        all
    }
}

/// The error that a frontend returns is the one that it was answered with, details and all.
fn returned_error(status: &Status) -> rpc::Status {
    details(status).unwrap_or(rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// What a failure says in more detail.
pub fn details(status: &Status) -> Option<rpc::Status> {
    prost::Message::decode(status.details()).ok().filter(|told: &rpc::Status| !told.message.is_empty())
}

/// Names of the steps that a build tells, or has told.
pub async fn steps(mut client: Client, name: String) -> Vec<String> {
    let mut names = Vec::new();
    let mut stream =
        client.control.status(control::StatusRequest { r#ref: name }).await.expect("a status").into_inner();
    while let Some(status) = stream.message().await.expect("a status") {
        names.extend(status.vertexes.into_iter().map(|vertex| vertex.name));
    }
    names
}

/// A build with a session of its own.
pub async fn build(socket: PathBuf, door: Door, offered: Offered, asked: Asked) -> Ended {
    let session = format!("session-{}", asked.name);
    session::open(&socket, &session, offered).await;
    Client::connect(&socket, door).await.build(&session, asked).await
}
