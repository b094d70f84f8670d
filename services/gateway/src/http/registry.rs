use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use futures::{StreamExt as _, stream};
use http::{HeaderMap, Method, Uri};

use super::answer::{Answer, ok};
use super::query::{Query, json_body};
use super::{credentials, images, system};
use crate::app::lines::Held;
use crate::app::pull::Wanted;
use crate::app::{App, Failure, filters};

const DEFAULT_RESULTS: i64 = 25;
/// Credentials are small.
const MAX_AUTH_BYTES: usize = 1 << 20;

/// A pull: fails with a status until it has said something, with a line from then on. It ends with its last client.
pub async fn pull(app: &App, image: &str, query: &Query, headers: &HeaderMap) -> Answer {
    let reference = images::with_tag(image.strip_suffix(':').unwrap_or(image), &query.text("tag"))?;
    answer(app.pull(Wanted { reference, platform: query.platform()?, auth: credentials::of_request(headers) })?).await
}

pub async fn push(app: Arc<App>, name: &str, query: &Query, request: Request) -> Answer {
    let headers = request.headers().clone();
    let body = axum::body::to_bytes(request.into_body(), MAX_AUTH_BYTES).await;
    let auth = credentials::of_push(&headers, &body.map_err(|error| Failure::invalid(error.to_string()))?)?;
    let reference = images::with_tag(name, &query.text("tag"))?;
    let platform = query.image_platform("platform")?;
    // Without a tag all go, each with its own check.
    if platform.is_some() && reference.tag().is_some() {
        app.find_image_of(&reference.familiar(), platform.as_ref()).await?;
    }
    answer(app.push(reference, platform, auth)?).await
}

async fn answer<T: Send + 'static>(mut work: Held<T>) -> Answer {
    let first = work.next().await.transpose()?;
    let rest = stream::unfold(work, async |mut work| Some((work.next().await?, work)));
    let rest = rest.map(|line| line.unwrap_or_else(|failure| images::error_line(&failure.message, None)));
    Ok(super::lines(stream::iter(first).chain(rest)))
}

pub async fn auth(State(app): State<Arc<App>>, body: Bytes) -> Answer {
    let config = json_body(&body)?;
    let address = config["serveraddress"].as_str().unwrap_or_default();
    ok(&app.login(address, credentials::auth(&config).unwrap_or_default()).await?)
}

/// `/distribution/{name}/json`: a name holds slashes.
pub async fn distribution(
    State(app): State<Arc<App>>,
    Path(rest): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    match rest.strip_suffix("/json") {
        Some(name) => ok(&app.inspect_in_registry(name, credentials::of_request(&headers)).await?),
        None => Ok(system::unknown(method, uri).await),
    }
}

pub async fn search(State(app): State<Arc<App>>, query: Query, headers: HeaderMap) -> Answer {
    let filters = query.filters(filters::OF_SEARCH)?;
    let limit = query.number("limit")?.unwrap_or(DEFAULT_RESULTS);
    ok(&app.search(&query.text("term"), limit, &filters, credentials::of_request(&headers)).await?)
}
