use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::Uri;
use forkyard_protocol::{KeyInfo, SandboxEventList, SandboxId};

use super::request::{query, sandbox_id};
use super::sandboxes::MAX_WAIT_MS;
use super::{Api, ApiResult};
use crate::action::Action;

/// Lists what happened to a machine, oldest first. Asking does not keep it from being idle.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/events",
    tag = "sandboxes",
    operation_id = "events",
    params(("id" = SandboxId, Path, description = "The machine"), ("cursor" = Option<String>, Query, description = "Only what came after the events that this came with, under whatever server"), ("wait_ms" = Option<u64>, Query, description = "Where there is nothing yet, wait for it at most so long, unless the machine has ended; at most 60,000; default: 0")),
    responses((status = 200, body = SandboxEventList, description = "The newest 200 of its life and 1,000 of its network at most")),
)]
pub async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["cursor", "wait_ms"])?;
    let cursor = query.text("cursor")?.map(str::to_owned);
    let wait = Duration::from_millis(query.number("wait_ms", 0)?.min(MAX_WAIT_MS));
    api.perform(&caller, Action::SandboxEvents(sandbox_id(&id)?, cursor, wait)).await
}
