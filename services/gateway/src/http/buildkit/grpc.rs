//! gRPC for buildx: on a connection that `POST /grpc` hands over, and on the API's socket itself for who speaks HTTP/2
//! there at once.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use hyper::server::conn::http2;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tower::ServiceExt as _;

use super::bridge::Bridge;
use super::control::Control;
use super::results::Results;
use super::rounds::Rounds;
use crate::app::App;
use crate::http::answer::Answer;
use crate::http::peer::{Connection, UserName};
use crate::http::session::{must_upgrade, switching};

/// The services, and `POST /grpc` that leads to them.
pub fn routes(app: Arc<App>) -> Router<Arc<App>> {
    let rounds = Arc::new(Rounds::default());
    let control = ControlServer::new(Control { app: app.clone(), rounds: rounds.clone() });
    let bridge = LlbBridgeServer::new(Bridge { app, rounds });
    let services = Router::new()
        .route_service("/moby.buildkit.v1.Control/{method}", control)
        .route_service("/moby.buildkit.v1.frontend.LLBBridge/{method}", bridge);
    let handed_over = services.clone().fallback(unknown);
    let upgrade = move |UserName(user): UserName, request: Request| hand_over(handed_over.clone(), user, request);
    services.layer(middleware::from_fn(with_user)).route("/grpc", axum::routing::post(upgrade)).with_state(())
}

/// Says to the services who asks, on which connection.
async fn with_user(user: UserName, mut request: Request, next: Next) -> Response {
    let results = request.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.results.clone());
    request.extensions_mut().insert(results.unwrap_or_default());
    request.extensions_mut().insert(user);
    next.run(request).await
}

async fn hand_over(services: Router, user: String, request: Request) -> Answer {
    must_upgrade(request.headers())?;
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(serve(upgrade, services, user));
    Ok(switching())
}

async fn serve(upgrade: OnUpgrade, services: Router, user: String) {
    let Ok(upgraded) = upgrade.await else { return };
    let results = Arc::<Results>::default();
    let service = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (services, user, results) = (services.clone(), user.clone(), results.clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(UserName(user));
            request.extensions_mut().insert(results);
            let response = services.oneshot(request).await.unwrap_or_else(|never| match never {});
            Ok::<_, Infallible>(response)
        }
    });
    let server = http2::Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).clone();
    if let Err(error) = server.serve_connection(upgraded, TowerToHyperService::new(service)).await {
        tracing::debug!(%error, "a gRPC connection ended");
    }
}

/// What gRPC says of a method that nobody serves.
async fn unknown() -> Response {
    let status = tonic::Status::unimplemented("unknown service");
    status.into_http::<tonic::body::Body>().map(Body::new).into_response()
}

/// Why a call failed, in gRPC's terms; the client reads the message.
pub fn status_of(failure: crate::app::Failure) -> tonic::Status {
    use model::ErrorKind;
    use tonic::Code;
    let code = match failure.kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Corrupt | ErrorKind::Internal | ErrorKind::NotModified => Code::Unknown,
    };
    tonic::Status::new(code, failure.message)
}
