use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use forkyard_protocol::{KeyInfo, NetworkEventList, NetworkInfo, NetworkPolicy, SandboxId};

use super::request::{json, query, sandbox_id};
use super::sandboxes::MAX_WAIT_MS;
use super::{Api, ApiResult};
use crate::action::{Action, NetworkCall};

/// Shows what a machine may reach, and what went through.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/network",
    tag = "network",
    params(("id" = SandboxId, Path, description = "The machine")),
    responses((status = 200, body = NetworkInfo, description = "Its network")),
)]
pub async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::Network(sandbox_id(&id)?, NetworkCall::Get)).await
}

/// Has a machine reach something else; connections that it may no longer have are reset before the answer. One that is suspended
/// finds it when it is resumed.
#[utoipa::path(
    put,
    path = "/sandboxes/{id}/network",
    tag = "network",
    params(("id" = SandboxId, Path, description = "The machine")),
    request_body(content = NetworkPolicy),
    responses((status = 200, body = NetworkInfo, description = "Its network")),
)]
pub async fn set(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    body: Body,
) -> ApiResult {
    let (id, policy) = (sandbox_id(&id)?, json(body).await?);
    api.perform(&caller, Action::Network(id, NetworkCall::Set(policy))).await
}

/// Lists what happened on a machine's network, oldest first.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/network/events",
    tag = "network",
    params(("id" = SandboxId, Path, description = "The machine"), ("cursor" = Option<String>, Query, description = "Only what came after the events that this came with"), ("wait_ms" = Option<u64>, Query, description = "Where there is nothing yet, wait for it at most so long; at most 60,000; default: 0")),
    responses((status = 200, body = NetworkEventList, description = "The newest 1,000 at most")),
)]
pub async fn events(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["cursor", "wait_ms"])?;
    let cursor = query.text("cursor")?.map(str::to_owned);
    let wait = Duration::from_millis(query.number("wait_ms", 0)?.min(MAX_WAIT_MS));
    api.perform(&caller, Action::Network(sandbox_id(&id)?, NetworkCall::Events(cursor, wait))).await
}
