use std::collections::BTreeMap;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use forkyard_protocol::{
    CreateSandbox, ErrorBody, ImageList, KeyInfo, Query, Sandbox, SandboxId, SandboxPage, SandboxStatus,
    ServerInfo, Stage, validate_label,
};

use super::request::{idempotency_key, invalid, json, query, sandbox_id, wait};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::sandbox::ListFilter;

/// Longest time that one call waits for a machine, in milliseconds; whoever wants to wait longer asks again.
pub const MAX_WAIT_MS: u64 = 60_000;

/// Machines of one page, by default and at most.
const PAGE: (u64, u64) = (100, 1000);

/// Makes a machine and, unless told otherwise, waits until it runs.
#[utoipa::path(
    post,
    path = "/sandboxes",
    tag = "sandboxes",
    params(("wait" = Option<bool>, Query, description = "Wait until it runs; default: true"), ("idempotency-key" = Option<String>, Header, description = "Names the call: repeating it has no second effect")),
    request_body(content = CreateSandbox),
    responses((status = 201, body = Sandbox, description = "It runs"), (status = 202, body = Sandbox, description = "It is being made")),
)]
pub async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let wait = wait(&query(&uri, &["wait"])?)?;
    let idempotency_key = idempotency_key(&headers)?;
    let request: CreateSandbox = json(body).await?;
    api.perform(&caller, Action::CreateSandbox { request, idempotency_key, wait }).await
}

/// Shows a machine.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}",
    tag = "sandboxes",
    params(("id" = SandboxId, Path, description = "The machine"), ("wait_ms" = Option<u64>, Query, description = "Wait so long, at most 60,000, for it to be made"), ("stage" = Option<Stage>, Query, description = "Wait only while it is in this stage")),
    responses((status = 200, body = Sandbox, description = "The machine")),
)]
pub async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["wait_ms", "stage"])?;
    let wait = Duration::from_millis(query.number("wait_ms", 0)?.min(MAX_WAIT_MS));
    let stage = query.text("stage")?.map(|word| {
        serde_json::from_value::<Stage>(word.into())
            .map_err(|_| invalid(format!("'{word}' is no stage of a machine that is being made")))
    });
    api.perform(&caller, Action::GetSandbox(sandbox_id(&id)?, wait, stage.transpose()?)).await
}

/// Lists the machines of the project, newest first.
#[utoipa::path(
    get,
    path = "/sandboxes",
    tag = "sandboxes",
    params(("name" = Option<String>, Query, description = "Only those of this name"), ("status" = Option<SandboxStatus>, Query, description = "Only those in this state"), ("image" = Option<String>, Query, description = "Only those of this image, as it was asked for or by its digest"), ("label" = Option<Vec<String>>, Query, description = "Only those with this label, `key:value`; given several times, with all of them", explode), ("limit" = Option<u64>, Query, description = "At most so many, 1 to 1,000; default: 100"), ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before")),
    responses((status = 200, body = SandboxPage, description = "One page")),
)]
pub async fn list(State(api): State<Api>, Extension(caller): Extension<KeyInfo>, uri: Uri) -> ApiResult {
    let query = Query::parse(uri.query().unwrap_or_default());
    query.only_with(&["name", "status", "image", "limit", "cursor"], &["label"])?;
    let status = query.text("status")?.map(|word| {
        serde_json::from_value::<SandboxStatus>(word.into()).map_err(|_| {
            invalid(
                "status must be pending, running, suspending, suspended, resuming, terminated or failed"
                    .to_owned(),
            )
        })
    });
    let limit = query.number("limit", PAGE.0)?;
    if !(1..=PAGE.1).contains(&limit) {
        return Err(invalid(format!("limit must be between 1 and {}, not {limit}", PAGE.1)).into());
    }
    let filter = ListFilter {
        name: query.text("name")?.map(str::to_owned),
        status: status.transpose()?,
        image: query.text("image")?.map(str::to_owned),
        labels: labels(&query)?,
        before: query.text("cursor")?.map(sandbox_id).transpose()?,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    };
    api.perform(&caller, Action::ListSandboxes(filter)).await
}

/// The labels that are asked for. A key holds no colon, so the first one ends it.
fn labels(query: &Query) -> Result<BTreeMap<String, String>, ErrorBody> {
    let mut labels = BTreeMap::new();
    for label in query.texts("label")? {
        let (key, value) = label
            .split_once(':')
            .ok_or_else(|| invalid(format!("label must be key:value, not '{}'", label.escape_debug())))?;
        validate_label(key, value).map_err(|error| invalid(error.to_string()))?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some_and(|other| other != value) {
            return Err(invalid(format!("label '{key}' is asked for with two values: no machine has both")));
        }
    }
    Ok(labels)
}

/// Ends a machine and waits for its end.
#[utoipa::path(
    delete,
    path = "/sandboxes/{id}",
    tag = "sandboxes",
    params(("id" = SandboxId, Path, description = "The machine")),
    responses((status = 200, body = Sandbox, description = "How it ended")),
)]
pub async fn terminate(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::TerminateSandbox(sandbox_id(&id)?)).await
}

/// Lists the images.
#[utoipa::path(
    get,
    path = "/images",
    tag = "server",
    responses((status = 200, body = ImageList, description = "The images")),
)]
pub async fn list_images(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::ListImages).await
}

/// Describes the server.
#[utoipa::path(
    get,
    path = "/server",
    tag = "server",
    responses((status = 200, body = ServerInfo, description = "The server")),
)]
pub async fn server_info(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::ServerInfo).await
}
