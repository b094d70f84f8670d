use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::answer::{Answer, empty, json_with, ok};
use super::hijack;
use super::query::{Query, json_body};
use crate::app::{App, Failure};

pub async fn create(State(app): State<Arc<App>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let request =
        serde_json::from_value(json_body(&body)?).map_err(|e| Failure::invalid(format!("invalid JSON: {e}")))?;
    let id = app.create_exec(&id, request).await?;
    Ok(json_with(StatusCode::CREATED, &json!({"Id": id})))
}

pub async fn start(State(app): State<Arc<App>>, Path(id): Path<String>, mut request: Request) -> Answer {
    let upgrade = hijack::upgrade_of(&mut request);
    let body = request.into_body().collect().await.map_err(|e| Failure::invalid(e.to_string()))?.to_bytes();
    let body = json_body(&body)?;
    let detach = body["Detach"].as_bool().unwrap_or(false);
    let size = move |at: usize| body["ConsoleSize"][at].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let exec = app.claim_exec(&id).await?;
    if detach {
        app.start_exec(&exec, None, (size(0), size(1))).await?;
        return empty(StatusCode::OK);
    }
    let content_type = if exec.spec.tty { hijack::RAW } else { hijack::MULTIPLEXED };
    let open = async move {
        let (ticket, pending) = hijack::ticket(&app);
        let accept = async { pending.accept().await.map_err(Failure::from) };
        let ((), duplex) = tokio::try_join!(app.start_exec(&exec, Some(ticket), (size(0), size(1))), accept)?;
        Ok(duplex)
    };
    Ok(match upgrade {
        Some(upgrade) => hijack::join_when(upgrade, content_type, open),
        None => match open.await {
            Ok(duplex) => hijack::join(None, duplex, content_type),
            Err(failure) => hijack::say(&failure, content_type),
        },
    })
}

pub async fn inspect(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer {
    ok(&app.inspect_exec(&id).await?)
}

pub async fn resize(State(app): State<Arc<App>>, Path(id): Path<String>, query: Query) -> Answer {
    let exec = app.find_exec(&id).await?;
    let (height, width) = super::containers::size_of_terminal(&query)?;
    let size = proto::TerminalSize { id: exec.container_id, exec_id: id, height, width };
    app.node_call::<bus::calls::Resize>(&exec.node_id, &size).await?;
    empty(StatusCode::OK)
}
