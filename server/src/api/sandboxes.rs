use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use forkyard_protocol::{KeyInfo, SandboxStatus};

use super::request::{idempotency_key, invalid, json, query, sandbox_id};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::sandbox::ListFilter;

/// Longest time that one call waits for a machine, in milliseconds; whoever wants to wait longer asks again.
const MAX_WAIT_MS: u64 = 60_000;

/// Machines of one page, by default and at most.
const PAGE: (u64, u64) = (100, 1000);

pub async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let query = query(&uri, &["wait"])?;
    let wait = query.bytes("wait").is_none() || query.flag("wait")?;
    let idempotency_key = idempotency_key(&headers)?;
    let request = json(body).await?;
    api.perform(&caller, Action::CreateSandbox { request, idempotency_key, wait }).await
}

pub async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let wait = query(&uri, &["wait_ms"])?.number("wait_ms", 0)?.min(MAX_WAIT_MS);
    api.perform(&caller, Action::GetSandbox(sandbox_id(&id)?, Duration::from_millis(wait))).await
}

pub async fn list(State(api): State<Api>, Extension(caller): Extension<KeyInfo>, uri: Uri) -> ApiResult {
    let query = query(&uri, &["name", "status", "limit", "cursor"])?;
    let status = query.text("status")?.map(|word| {
        serde_json::from_value::<SandboxStatus>(word.into())
            .map_err(|_| invalid("status must be pending, running, terminated or failed".to_owned()))
    });
    let limit = query.number("limit", PAGE.0)?;
    if !(1..=PAGE.1).contains(&limit) {
        return Err(invalid(format!("limit must be between 1 and {}, not {limit}", PAGE.1)).into());
    }
    let filter = ListFilter {
        name: query.text("name")?.map(str::to_owned),
        status: status.transpose()?,
        before: query.text("cursor")?.map(sandbox_id).transpose()?,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    };
    api.perform(&caller, Action::ListSandboxes(filter)).await
}

pub async fn terminate(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::TerminateSandbox(sandbox_id(&id)?)).await
}

pub async fn list_images(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::ListImages).await
}

pub async fn server_info(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::ServerInfo).await
}
