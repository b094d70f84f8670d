//! What buildx asks of an engine (docker driver), in its order: a throw-away round that looks for capabilities, then the
//! build itself, with a session that sends files. By a connection of `POST /grpc`, and straight on the API's socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as bridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use hyper_util::rt::TokioIo;
use kit::session::{hand_over, open_session};
use kit::{Engine, Kind};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// How a connection for gRPC is made.
#[derive(Clone, Copy, Debug)]
enum Door {
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

struct Client {
    control: ControlClient<Channel>,
    bridge: LlbBridgeClient<Channel>,
}

/// A message of the bridge, with the round that it belongs to.
fn in_round<T>(round: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", round.parse().expect("plain"));
    request
}

impl Client {
    async fn connect(socket: &Path, door: Door) -> Self {
        let channel = connect(socket, door).await;
        Self { control: ControlClient::new(channel.clone()), bridge: LlbBridgeClient::new(channel) }
    }

    /// One round: Status and Solve at once, a ping, what `frontend_opt` builds (none: nothing is built), and its return.
    /// Gives the exporters' response, or why it failed, and the names of the steps that were told.
    async fn round(
        &mut self,
        request: control::SolveRequest,
        frontend_opt: Option<&[(&str, &str)]>,
    ) -> (Result<control::SolveResponse, Status>, Vec<String>) {
        let name = request.r#ref.clone();
        let (mut of_solve, mut of_status) = (self.control.clone(), self.control.clone());
        let status = tokio::spawn({
            let name = name.clone();
            async move {
                let mut names = Vec::new();
                let mut stream =
                    of_status.status(control::StatusRequest { r#ref: name }).await.expect("a status").into_inner();
                while let Some(status) = stream.message().await.expect("a status") {
                    names.extend(status.vertexes.into_iter().map(|vertex| vertex.name));
                }
                names
            }
        });
        let solve = tokio::spawn(async move { of_solve.solve(request).await });
        let pong = self.bridge.ping(in_round(&name, bridge::PingRequest {})).await.expect("a pong").into_inner();
        assert!(pong.frontend_api_caps.iter().any(|cap| cap.id == "return" && cap.enabled));
        assert_eq!(pong.workers.len(), 1);
        let mut returned = bridge::ReturnRequest { result: Some(bridge::Result::default()), error: None };
        if let Some(options) = frontend_opt {
            let asked = bridge::SolveRequest {
                frontend: "dockerfile.v0".to_owned(),
                frontend_opt: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
                allow_result_return: true,
                allow_result_array_ref: true,
                ..Default::default()
            };
            match self.bridge.solve(in_round(&name, asked)).await {
                Ok(solved) => returned.result = solved.into_inner().result,
                Err(status) => {
                    returned.result = None;
                    returned.error = Some(bollard_buildkit_proto::google::rpc::Status {
                        code: status.code().into(),
                        message: status.message().to_owned(),
                        details: Vec::new(),
                    });
                }
            }
        }
        self.bridge.r#return(in_round(&name, returned)).await.expect("returned");
        let solved = tokio::time::timeout(Duration::from_secs(60), solve).await.expect("answered").expect("joined");
        let names = tokio::time::timeout(Duration::from_secs(60), status).await.expect("ended").expect("joined");
        (solved.map(Response::into_inner), names)
    }
}

fn request(round: &str, session: &str, image: Option<&str>) -> control::SolveRequest {
    let exporter = image.map(|image| control::Exporter {
        r#type: "moby".to_owned(),
        attrs: [("name".to_owned(), image.to_owned())].into(),
    });
    control::SolveRequest {
        r#ref: round.to_owned(),
        session: session.to_owned(),
        exporters: exporter.into_iter().collect(),
        ..Default::default()
    }
}

async fn build(socket: PathBuf, door: Door, image: &str) -> String {
    let session = format!("session-{image}");
    let folders = BTreeMap::from([
        (
            "dockerfile",
            files(&[("Dockerfile", "FROM busybox\nARG WHO\nCOPY file /\nRUN cat /file && echo $WHO > /who\n")]),
        ),
        ("context", files(&[("Dockerfile", "not this one"), ("file", "sent by the session\n"), ("other", "x")])),
    ]);
    open_session(&socket, &session, folders).await;
    let mut client = Client::connect(&socket, door).await;
    let workers = client.control.list_workers(control::ListWorkersRequest::default()).await.expect("workers");
    let workers = workers.into_inner().record;
    assert!(workers.len() == 1 && workers[0].platforms[0].os == "linux", "{workers:?}");
    let (probed, told) = client.round(request(&format!("{image}-probe"), &session, None), None).await;
    assert!(probed.expect("nothing to build").exporter_response.is_empty() && told.is_empty());
    let options = [("filename", "Dockerfile"), ("build-arg:WHO", "you"), ("image-resolve-mode", "local")];
    let (solved, told) = client.round(request(image, &session, Some(image)), Some(&options)).await;
    let response = solved.expect("built").exporter_response;
    assert!(told.iter().any(|name| name == "[internal] load build definition from Dockerfile"), "{told:?}");
    assert!(told.iter().any(|name| name.contains("RUN cat /file")), "{told:?}");
    response["containerimage.digest"].clone()
}

fn files(list: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    list.iter().map(|(path, content)| (*path, (*content).to_owned())).collect()
}

fn run(flow: impl Future) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(flow);
}

#[test]
fn two_rounds_build_an_image_through_either_door() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        for (door, image) in [(Door::HandedOver, "handed"), (Door::Straight, "straight")] {
            let socket = engine.socket().to_owned();
            run(async move {
                let digest = build(socket, door, image).await;
                assert!(digest.starts_with("sha256:"), "{door:?}: {digest}");
            });
            engine.docker(&["run", "--rm", image, "cat", "/file", "/who"]).says("sent by the session\nyou");
        }
    });
}

#[test]
fn what_fails_or_is_not_served_says_so() {
    kit::run(Kind::Boxyard, |engine: &Engine| {
        let socket = engine.socket().to_owned();
        run(async move {
            let folders = BTreeMap::from([
                ("dockerfile", files(&[("Dockerfile", "FROM busybox\nRUN exit 7\n")])),
                ("context", BTreeMap::new()),
            ]);
            open_session(&socket, "failing", folders).await;
            let mut client = Client::connect(&socket, Door::HandedOver).await;
            let (solved, _) = client.round(request("fails", "failing", Some("never")), Some(&[])).await;
            let failed = solved.expect_err("the step failed");
            assert!(failed.message().contains("exit code: 7"), "{failed}");
            let alone =
                control::SolveRequest { frontend: "dockerfile.v0".to_owned(), ..request("alone", "nobody", None) };
            let failed = client.control.solve(alone).await.expect_err("there is no such session");
            assert!(failed.message().contains("no active session for nobody"), "{failed}");
            let definition = bollard_buildkit_proto::pb::Definition { def: vec![vec![1]], ..Default::default() };
            let llb = control::SolveRequest { definition: Some(definition), ..request("llb", "failing", None) };
            assert_eq!(client.control.solve(llb).await.expect_err("refused").code(), Code::Unimplemented);
            let history = client.control.listen_build_history(control::BuildHistoryRequest::default()).await;
            assert_eq!(history.expect_err("not served").code(), Code::Unimplemented);
            let read = client.bridge.read_file(in_round("none", bridge::ReadFileRequest::default())).await;
            assert_eq!(read.expect_err("not served").code(), Code::Unimplemented);
            let late = client.bridge.ping(in_round("no-such-round", bridge::PingRequest {})).await;
            assert_eq!(late.expect_err("no round").code(), Code::NotFound);
        });
    });
}
