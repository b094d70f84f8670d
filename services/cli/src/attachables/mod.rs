//! What a build may ask of the client (BuildKit's session): folders, credentials, secrets, ssh agents, and a place for
//! what was built. The connection of `POST /session` is handed over; on it the daemon is the gRPC client and we the server.

mod auth;
mod content;
mod digests;
mod folders;
mod follow;
mod incoming;
mod outputs;
mod receive;
mod secrets;
mod ssh;
mod walk;

use std::collections::BTreeMap;

use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSyncServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::SshServer;
use futures::stream::BoxStream;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

pub use content::Contents;
pub use folders::Folder;
pub use outputs::{Destination, Outputs};
pub use secrets::Secrets;
pub use ssh::Agents;

use crate::engine::Engine;
use crate::failure::Outcome;

/// Everything that the daemon may ask for.
pub struct Attachables {
    /// By the name that a build asks for: "context", "dockerfile", a named context.
    pub folders: BTreeMap<String, Folder>,
    pub secrets: Secrets,
    pub agents: Agents,
    pub outputs: Outputs,
    /// OCI layouts.
    pub contents: Contents,
    /// Names the context over many builds, so that the daemon finds what it was sent before.
    pub shared_key: String,
}

/// An open session; it ends when this is dropped.
pub struct Session {
    pub id: String,
    shared_key: String,
    methods: Vec<&'static str>,
    routes: Routes,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Session {
    /// Opens it again, under its id, where its connection has ended: through whichever gateway there is.
    pub async fn reopen(&mut self, engine: &Engine) -> Outcome {
        if self.serving.is_finished() {
            self.serve(engine).await?;
        }
        Ok(())
    }

    async fn serve(&mut self, engine: &Engine) -> Outcome {
        let call = engine
            .post("/session")
            .header("x-docker-expose-session-uuid", &self.id)
            .header("x-docker-expose-session-name", "boxyard")
            .header("x-docker-expose-session-sharedkey", &self.shared_key);
        let methods = self.methods.iter().copied();
        let call = methods.fold(call, |call, method| call.header("x-docker-expose-session-grpc-method", method));
        let io = call.upgrade("h2c").await?;
        let routes = self.routes.clone();
        self.serving = tokio::spawn(async move {
            let server = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(2 << 20)
                .initial_connection_window_size(8 << 20)
                .serve_connection(io, TowerToHyperService::new(routes.prepare()));
            // The build tells what a broken session means for it.
            let _ = server.await;
        });
        Ok(())
    }
}

impl Attachables {
    /// Opens the session.
    pub async fn open(self, engine: &Engine) -> Outcome<Session> {
        let (methods, shared_key) = (self.methods(), self.shared_key.clone());
        let id = hex::encode(rand::random::<[u8; 16]>());
        let serving = tokio::spawn(async {});
        let mut session = Session { id, shared_key, methods, routes: self.routes(), serving };
        session.serve(engine).await?;
        Ok(session)
    }

    fn methods(&self) -> Vec<&'static str> {
        let mut methods = vec![
            "/grpc.health.v1.Health/Check",
            "/moby.filesync.v1.FileSync/DiffCopy",
            "/moby.filesync.v1.FileSync/TarStream",
            "/moby.filesync.v1.Auth/Credentials",
            digests::METHOD,
        ];
        if !self.secrets.is_empty() {
            methods.push("/moby.buildkit.secrets.v1.Secrets/GetSecret");
        }
        if !self.agents.is_empty() {
            methods.extend(["/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"]);
        }
        if !self.outputs.is_empty() {
            methods.push("/moby.filesync.v1.FileSend/DiffCopy");
        }
        if !self.contents.is_empty() {
            methods.extend(content::METHODS);
        }
        methods
    }

    fn routes(self) -> Routes {
        let mut routes = Routes::new(HealthServer::new(Alive))
            .add_service(FileSyncServer::new(folders::Folders::new(self.folders)))
            .add_service(AuthServer::new(auth::Login))
            .add_service(SecretsServer::new(self.secrets))
            .add_service(SshServer::new(self.agents));
        if !self.outputs.is_empty() {
            routes = routes.add_service(self.outputs.service());
        }
        if !self.contents.is_empty() {
            routes = routes.add_service(self.contents.service());
        }
        routes
    }
}

/// We answer as long as we run.
struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("List"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("Watch"))
    }
}
