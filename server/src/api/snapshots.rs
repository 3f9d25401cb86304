use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use forkyard_protocol::{
    CreateSnapshot, ForkSandbox, KeyInfo, RestoreSandbox, RetentionPolicy, Sandbox, SandboxId, SandboxList,
    Snapshot, SnapshotId, SnapshotList,
};

use super::request::{idempotency_key, json, query, sandbox_id, snapshot_id, wait};
use super::sandboxes::MAX_WAIT_MS;
use super::{Api, ApiResult};
use crate::action::Action;

/// Freezes a running machine, which goes on running.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/snapshots",
    tag = "snapshots",
    params(("id" = SandboxId, Path, description = "The machine"), ("wait" = Option<bool>, Query, description = "Wait until it is on disk; default: true")),
    request_body(content = CreateSnapshot),
    responses((status = 201, body = Snapshot, description = "It is on disk"), (status = 202, body = Snapshot, description = "It is being made")),
)]
pub async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let wait = wait(&query(&uri, &["wait"])?)?;
    let (sandbox_id, request) = (sandbox_id(&id)?, json::<CreateSnapshot>(body).await?);
    api.perform(&caller, Action::CreateSnapshot { sandbox_id, request, wait }).await
}

/// Starts twins of a running machine, each with its memory, its processes and its disk as they stand.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/fork",
    tag = "snapshots",
    params(("id" = SandboxId, Path, description = "The machine"), ("wait" = Option<bool>, Query, description = "Wait until they run; default: true"), ("idempotency-key" = Option<String>, Header, description = "Names the call: repeating it has no second effect")),
    request_body(content = ForkSandbox),
    responses((status = 201, body = SandboxList, description = "The forks")),
)]
pub async fn fork(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let wait = wait(&query(&uri, &["wait"])?)?;
    let idempotency_key = idempotency_key(&headers)?;
    let (sandbox_id, request) = (sandbox_id(&id)?, json::<ForkSandbox>(body).await?);
    api.perform(&caller, Action::ForkSandbox { sandbox_id, request, idempotency_key, wait }).await
}

/// Shows a snapshot.
#[utoipa::path(
    get,
    path = "/snapshots/{id}",
    tag = "snapshots",
    params(("id" = SnapshotId, Path, description = "The snapshot"), ("wait_ms" = Option<u64>, Query, description = "Wait so long, at most 60,000, for it to be made")),
    responses((status = 200, body = Snapshot, description = "The snapshot")),
)]
pub async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let wait = Duration::from_millis(query(&uri, &["wait_ms"])?.number("wait_ms", 0)?.min(MAX_WAIT_MS));
    api.perform(&caller, Action::GetSnapshot(snapshot_id(&id)?, wait)).await
}

/// Lists the project's snapshots, newest first.
#[utoipa::path(
    get,
    path = "/snapshots",
    tag = "snapshots",
    responses((status = 200, body = SnapshotList, description = "The snapshots")),
)]
pub async fn list(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::ListSnapshots).await
}

/// Deletes a snapshot; machines that came from it go on.
#[utoipa::path(
    delete,
    path = "/snapshots/{id}",
    tag = "snapshots",
    params(("id" = SnapshotId, Path, description = "The snapshot")),
    responses((status = 204, description = "It is deleted")),
)]
pub async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::DeleteSnapshot(snapshot_id(&id)?)).await
}

/// Puts a machine on disk: it holds no memory and no processor until it is resumed.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/suspend",
    tag = "snapshots",
    params(("id" = SandboxId, Path, description = "The machine")),
    responses((status = 200, body = Sandbox, description = "The machine")),
)]
pub async fn suspend(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::SuspendSandbox(sandbox_id(&id)?)).await
}

/// Lets a suspended machine go on where it stood.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/resume",
    tag = "snapshots",
    params(("id" = SandboxId, Path, description = "The machine")),
    responses((status = 200, body = Sandbox, description = "The machine")),
)]
pub async fn resume(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::ResumeSandbox(sandbox_id(&id)?)).await
}

/// Puts a machine back to where a snapshot stands; what it did since is gone.
///
/// Where the snapshot does not come up the machine goes on as it was, and the answer is `unavailable`.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/restore",
    tag = "snapshots",
    params(("id" = SandboxId, Path, description = "The machine")),
    request_body(content = RestoreSandbox),
    responses((status = 200, body = Sandbox, description = "The machine")),
)]
pub async fn restore(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    body: Body,
) -> ApiResult {
    let (id, request) = (sandbox_id(&id)?, json::<RestoreSandbox>(body).await?);
    api.perform(&caller, Action::RestoreSandbox(id, request)).await
}

/// Shows which of its snapshots the project keeps.
#[utoipa::path(
    get,
    path = "/retention",
    tag = "snapshots",
    responses((status = 200, body = RetentionPolicy, description = "The policy")),
)]
pub async fn retention(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::GetRetention).await
}

/// Has the project keep others of its snapshots; what it no longer keeps is deleted at once.
#[utoipa::path(
    put,
    path = "/retention",
    tag = "snapshots",
    request_body(content = RetentionPolicy),
    responses((status = 200, body = RetentionPolicy, description = "The policy")),
)]
pub async fn set_retention(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    body: Body,
) -> ApiResult {
    api.perform(&caller, Action::SetRetention(json(body).await?)).await
}
