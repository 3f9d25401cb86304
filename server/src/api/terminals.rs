use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use forkyard_protocol::{KeyInfo, ProcessId, ProcessInfo, PtySize, SandboxId};

use super::request::{json, process_id, sandbox_id};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::guest::GuestCall;

/// Changes the size of a process's terminal; what is in its foreground is told (SIGWINCH).
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/processes/{process}/resize",
    tag = "processes",
    params(("id" = SandboxId, Path, description = "The machine"), ("process" = ProcessId, Path, description = "The process, started with `pty`")),
    request_body(content = PtySize),
    responses((status = 200, body = ProcessInfo, description = "The process")),
)]
pub async fn resize(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, process)): Path<(String, String)>,
    body: Body,
) -> ApiResult {
    let (process, size) = (process_id(&process)?, json::<PtySize>(body).await?);
    size.validate()?;
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, GuestCall::Resize(process, size))).await
}
