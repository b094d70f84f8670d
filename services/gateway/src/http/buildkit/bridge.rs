use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::fsutil::types::Stat;
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
const CAPABILITIES: [&str; 12] = [
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
    "readfile",
    "statfile",
];

/// What they find of outputs (solver/pb of the same, caps).
const EXPORTS: [&str; 3] = ["exporter.multiple", "exporter.sourcedateepoch", "exporter.image.annotations"];

/// And of definitions, of which only those are read that name a source by URL, or a folder of one.
const SOURCES: [&str; 9] = [
    "source.http",
    "source.git",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.subdir",
    "file.base",
    "meta.description",
    "constraints",
    "platform",
];

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

impl Bridge {
    async fn look_at(
        &self,
        round: &Round,
        results: &Results,
        (id, path, content): (&str, String, bool),
    ) -> Result<HashMap<String, String>, Status> {
        let input = results.find(id).map_err(status_of)?;
        // A file by its URL has the name that the client gave it.
        let path = if input.is_file() { String::new() } else { path };
        round.look_at(&self.app, input, proto::LookAt { path, content }).await.map_err(Failed::status)
    }
}

/// What a range asks for; all without one.
fn part(content: Vec<u8>, range: Option<wire::FileRange>) -> Vec<u8> {
    let Some(wire::FileRange { offset, length }) = range else { return content };
    let from = usize::try_from(offset).unwrap_or_default();
    let length = usize::try_from(length).ok().filter(|length| *length > 0).unwrap_or(content.len());
    content.into_iter().skip(from).take(length).collect()
}

/// Configs of the images, and what a request about the Dockerfile answers ("result.json", "result.txt").
fn metadata(built: &Built) -> HashMap<String, Vec<u8>> {
    let answers = built.response.iter().filter(|(key, _)| !key.starts_with("containerimage."));
    let answers = answers.map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let key = "containerimage.config";
    let is_only = built.results.len() == 1;
    let configs = built.results.iter().filter_map(|(made, _)| {
        let key = if is_only { key.to_owned() } else { format!("{key}/{}", made.platform) };
        Some((key, made.image.as_ref()?.config.clone()))
    });
    answers.chain(configs).collect()
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
            llb_caps: EXPORTS.iter().chain(&SOURCES).map(|id| capability(id)).collect(),
            workers: worker_records(&self.app).await.map_err(status_of)?,
        }))
    }

    /// Builds to the end: a result is never lazy.
    async fn solve(&self, request: Request<wire::SolveRequest>) -> Result<Response<wire::SolveResponse>, Status> {
        let round = self.round(&request).await?;
        let results = results_of(&request);
        let request = request.into_inner();
        if let Some(definition) = request.definition.filter(|definition| !definition.def.is_empty()) {
            let named = round.name(&results, definition).map_err(status_of)?;
            let (id, result) = (named.id.clone(), Some(wire::result::Result::Ref(named)));
            let result = wire::Result { result, ..Default::default() };
            return Ok(Response::new(wire::SolveResponse { r#ref: id, result: Some(result) }));
        }
        let asked = Asked {
            frontend: request.frontend,
            attrs: request.frontend_opt,
            inputs: request.frontend_inputs,
            is_named: true,
        };
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

    async fn read_file(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Result<Response<wire::ReadFileResponse>, Status> {
        let (round, results) = (self.round(&request).await?, results_of(&request));
        let wire::ReadFileRequest { r#ref, file_path, range, .. } = request.into_inner();
        let told = self.look_at(&round, &results, (&r#ref, file_path, true)).await?;
        let content = STANDARD.decode(told.get("content").map_or("", String::as_str));
        let content = content.map_err(|_| Status::internal("a file's content cannot be read"))?;
        Ok(Response::new(wire::ReadFileResponse { data: part(content, range) }))
    }

    async fn stat_file(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Result<Response<wire::StatFileResponse>, Status> {
        let (round, results) = (self.round(&request).await?, results_of(&request));
        let wire::StatFileRequest { r#ref, path, .. } = request.into_inner();
        let told = self.look_at(&round, &results, (&r#ref, path.clone(), false)).await?;
        let number = |name: &str| told.get(name).and_then(|number| number.parse::<i64>().ok()).unwrap_or_default();
        let mode = u32::try_from(number("mode")).unwrap_or_default();
        let path = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let stat = Stat { path, mode: contexts::go_mode_of(mode), size: number("size"), ..Default::default() };
        Ok(Response::new(wire::StatFileResponse { stat: Some(stat) }))
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
        read_dir(ReadDirRequest) -> ReadDirResponse;
        new_container(NewContainerRequest) -> NewContainerResponse;
        release_container(ReleaseContainerRequest) -> ReleaseContainerResponse;
        read_file_container(ReadFileRequest) -> ReadFileResponse;
        read_dir_container(ReadDirRequest) -> ReadDirResponse;
        stat_file_container(StatFileRequest) -> StatFileResponse;
        warn(WarnRequest) -> WarnResponse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_a_name_also_where_their_config_is_not_known() {
        let image = |platform: &str| proto::BuiltImage {
            platform: platform.to_owned(),
            image: Some(proto::Image { config: platform.as_bytes().to_vec(), ..Default::default() }),
            ..Default::default()
        };
        let of = |images: Vec<proto::BuiltImage>| {
            let name = |image: &proto::BuiltImage| wire::Ref { id: format!("of {}", image.platform), def: None };
            let results = images.into_iter().map(|image| (image.clone(), name(&image))).collect();
            let built = Built { results, ..Built::default() };
            let mut keys: Vec<_> = metadata(&built).into_keys().collect();
            keys.sort();
            let mut names = match refs(&built, "id", true) {
                wire::result::Result::Ref(only) => vec![only.id],
                wire::result::Result::Refs(many) => many.refs.into_values().map(|name| name.id).collect(),
                other => panic!("{other:?}"),
            };
            names.sort();
            (keys.join(" "), names.join(", "))
        };
        for (images, keys, names) in [
            (vec![], "", ""),
            (vec![image("a")], "containerimage.config", "of a"),
            (vec![image("a"), image("b")], "containerimage.config/a containerimage.config/b", "of a, of b"),
            (vec![proto::BuiltImage::default()], "", "of "),
        ] {
            assert_eq!(of(images), (keys.to_owned(), names.to_owned()));
        }
    }
}
