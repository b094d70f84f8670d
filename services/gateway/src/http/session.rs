//! `POST /session`: the client hands its connection over, and is a gRPC server on it from then on (BuildKit's session).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::answer::Answer;
use crate::app::sessions::Told;
use crate::app::{App, Failure, Outcome};

const H2C: HeaderValue = HeaderValue::from_static("h2c");

pub async fn session(State(app): State<Arc<App>>, request: Request) -> Answer {
    let told = told(request.headers())?;
    must_upgrade(request.headers())?;
    let opening = app.open_session(told)?;
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        // Bytes of the new protocol that came with the request are read first.
        if let Ok(upgraded) = upgrade.await {
            opening.serve(upgraded).await;
        }
    });
    Ok(switching())
}

/// # Errors
/// `InvalidArgument` for a connection that is not to become HTTP/2.
pub fn must_upgrade(headers: &HeaderMap) -> Outcome<()> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match upgrade {
        "h2c" => Ok(()),
        "" => Err(Failure::invalid("no upgrade proto in request")),
        other => Err(Failure::invalid(format!("protocol {other} not supported"))),
    }
}

pub fn switching() -> Response {
    let headers = [(header::CONNECTION, HeaderValue::from_static("Upgrade")), (header::UPGRADE, H2C)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// # Errors
/// `InvalidArgument` for a session without a name.
pub fn told(headers: &HeaderMap) -> Outcome<Told> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let id = text("X-Docker-Expose-Session-Uuid");
    if id.is_empty() {
        return Err(Failure::invalid("a session without X-Docker-Expose-Session-Uuid"));
    }
    let methods = headers.get_all("X-Docker-Expose-Session-Grpc-Method").iter();
    let methods = methods.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    Ok(Told { id, shared_key: text("X-Docker-Expose-Session-Sharedkey"), methods })
}
