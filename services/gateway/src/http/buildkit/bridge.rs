use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;
use futures::Stream;
use futures::future::BoxFuture;
use tonic::{Request, Response, Status, Streaming};

use super::control::worker_records;
use super::failed::{Failed, told_by_client};
use super::grpc::status_of;
use super::results::Results;
use super::rounds::{Asked, Built, Round, Rounds};
use crate::app::App;

/// Key of the metadata that names the round of a call.
const ROUND: &str = "buildkit-controlapi-buildid";
/// What clients find of the frontend's interface here (frontend/gateway/pb of moby/buildkit, caps).
const CAPABILITIES: [&str; 10] = [
    "solve.base",
    "return",
    "returnmap",
    "importcaches",
    "proto.refarray",
    "gateway.solve.metadata",
    "gateway.evaluate",
    "gateway.evaluate.solve",
    "reference.output",
    "frontend.inputs",
];

/// What they find of outputs (solver/pb of the same, caps). Definitions are not solved, so nothing else is there.
const EXPORTS: [&str; 3] = ["exporter.multiple", "exporter.sourcedateepoch", "exporter.image.annotations"];

/// Results of the connection that a request came by.
pub fn results_of<T>(request: &Request<T>) -> Arc<Results> {
    request.extensions().get::<Arc<Results>>().cloned().unwrap_or_default()
}

/// BuildKit's interface for frontends, as far as a client needs it that names the Dockerfile's.
pub struct Bridge {
    pub app: Arc<App>,
    pub rounds: Arc<Rounds>,
}

impl Bridge {
    async fn round<T>(&self, request: &Request<T>) -> Result<Arc<Round>, Status> {
        let name = request.metadata().get(ROUND).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if name.is_empty() {
            return Err(Status::invalid_argument(format!("no {ROUND} found in request")));
        }
        let round = self.rounds.find(name).await.map_err(status_of)?;
        match round.is_over() {
            true => Err(Status::not_found(format!("no such job {name}"))),
            false => Ok(round),
        }
    }
}

/// Configs of the images, and what a request about the Dockerfile answers ("result.json", "result.txt").
fn metadata(built: &Built) -> HashMap<String, Vec<u8>> {
    let answers = built.response.iter().filter(|(key, _)| !key.starts_with("containerimage."));
    let answers = answers.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let config = |made: &proto::BuiltImage| made.image.clone().unwrap_or_default().config;
    let key = "containerimage.config";
    match built.results.as_slice() {
        [(only, _)] => answers.chain([(key.to_owned(), config(only))]).collect(),
        many => {
            answers.chain(many.iter().map(|(made, _)| (format!("{key}/{}", made.platform), config(made)))).collect()
        }
    }
}

/// What a client calls what was built; without array refs, of clients before 2019, one image only.
fn refs(built: &Built, id: &str, with_arrays: bool) -> wire::result::Result {
    match built.results.as_slice() {
        _ if !with_arrays => wire::result::Result::RefDeprecated(id.to_owned()),
        // An answer about the Dockerfile comes without a result.
        [] => wire::result::Result::Ref(wire::Ref::default()),
        [(_, only)] => wire::result::Result::Ref(only.clone()),
        many => {
            let refs = many.iter().map(|(made, name)| (made.platform.clone(), name.clone())).collect();
            wire::result::Result::Refs(wire::RefMap { refs })
        }
    }
}

/// Methods of the trait as `async_trait` writes them, since it does not look into macros.
macro_rules! not_served {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        $(fn $name<'a, 'b>(
            &'a self,
            _: Request<wire::$request>,
        ) -> BoxFuture<'b, Result<Response<wire::$response>, Status>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented(concat!("LLBBridge/", stringify!($name), " is not served"))) })
        })*
    };
}

#[tonic::async_trait]
impl wire::llb_bridge_server::LlbBridge for Bridge {
    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<wire::ExecMessage, Status>> + Send>>;

    async fn ping(&self, request: Request<wire::PingRequest>) -> Result<Response<wire::PongResponse>, Status> {
        self.round(&request).await?;
        let capability = |id: &str| ApiCap { id: id.to_owned(), enabled: true, ..Default::default() };
        Ok(Response::new(wire::PongResponse {
            frontend_api_caps: CAPABILITIES.map(capability).to_vec(),
            llb_caps: EXPORTS.map(capability).to_vec(),
            workers: worker_records(&self.app).await.map_err(status_of)?,
        }))
    }

    /// Builds to the end: a result is never lazy.
    async fn solve(&self, request: Request<wire::SolveRequest>) -> Result<Response<wire::SolveResponse>, Status> {
        let round = self.round(&request).await?;
        let results = results_of(&request);
        let request = request.into_inner();
        if request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty()) {
            return Err(Status::unimplemented("LLB definitions are not solved: name the frontend dockerfile.v0"));
        }
        let asked = Asked { frontend: request.frontend, attrs: request.frontend_opt, inputs: request.frontend_inputs };
        let built = round.build(&self.app, &results, asked).await.map_err(Failed::status)?;
        let id = if built.image_id.is_empty() { round.request.r#ref.clone() } else { built.image_id.clone() };
        let named = refs(&built, &id, request.allow_result_array_ref);
        let result = wire::Result { metadata: metadata(&built), result: Some(named), ..Default::default() };
        Ok(Response::new(wire::SolveResponse { r#ref: id, result: request.allow_result_return.then_some(result) }))
    }

    async fn r#return(&self, request: Request<wire::ReturnRequest>) -> Result<Response<wire::ReturnResponse>, Status> {
        let round = self.round(&request).await?;
        let error = request.into_inner().error;
        let outcome = error.map_or(Ok(()), |error| Err(told_by_client(error)));
        round.returned.send_replace(Some(outcome));
        Ok(Response::new(wire::ReturnResponse {}))
    }

    /// A result is there as soon as it was named.
    async fn evaluate(
        &self,
        request: Request<wire::EvaluateRequest>,
    ) -> Result<Response<wire::EvaluateResponse>, Status> {
        self.round(&request).await?;
        Ok(Response::new(wire::EvaluateResponse {}))
    }

    async fn inputs(&self, request: Request<wire::InputsRequest>) -> Result<Response<wire::InputsResponse>, Status> {
        self.round(&request).await?;
        Ok(Response::new(wire::InputsResponse::default()))
    }

    async fn exec_process(
        &self,
        _: Request<Streaming<wire::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        Err(Status::unimplemented("LLBBridge.ExecProcess is not served"))
    }

    not_served! {
        resolve_image_config(ResolveImageConfigRequest) -> ResolveImageConfigResponse;
        resolve_source_meta(ResolveSourceMetaRequest) -> ResolveSourceMetaResponse;
        read_file(ReadFileRequest) -> ReadFileResponse;
        read_dir(ReadDirRequest) -> ReadDirResponse;
        stat_file(StatFileRequest) -> StatFileResponse;
        new_container(NewContainerRequest) -> NewContainerResponse;
        release_container(ReleaseContainerRequest) -> ReleaseContainerResponse;
        read_file_container(ReadFileRequest) -> ReadFileResponse;
        read_dir_container(ReadDirRequest) -> ReadDirResponse;
        stat_file_container(StatFileRequest) -> StatFileResponse;
        warn(WarnRequest) -> WarnResponse;
    }
}
