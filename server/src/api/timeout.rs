use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use forkyard_protocol::{ExtendTimeout, KeyInfo, Sandbox, SandboxId};

use super::request::{json, sandbox_id};
use super::{Api, ApiResult};
use crate::action::Action;

/// Gives a machine another idle time-out, counted from this call on.
#[utoipa::path(
    put,
    path = "/sandboxes/{id}/timeout",
    tag = "sandboxes",
    params(("id" = SandboxId, Path, description = "The machine")),
    request_body(content = ExtendTimeout),
    responses((status = 200, body = Sandbox, description = "The machine")),
)]
pub async fn extend_timeout(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    body: Body,
) -> ApiResult {
    let (id, request) = (sandbox_id(&id)?, json::<ExtendTimeout>(body).await?);
    api.perform(&caller, Action::ExtendTimeout(id, request)).await
}
