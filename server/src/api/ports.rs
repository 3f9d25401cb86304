use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::{IntoResponse as _, Json};
use forkyard_protocol::{CreatePreview, KeyInfo, MAX_PORT_WAIT_MS, PortList, Preview, SandboxId};

use super::openapi::Binary;
use super::request::{json, port, query, sandbox_id, stream};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::clock::now_ns;
use crate::guest::GuestCall;

/// Lists the TCP ports that something in the machine listens on.
///
/// HTTP and web sockets reach them at `/v1/sandboxes/{id}/ports/{port}/…`, with any method, whatever follows being the path in
/// the machine. The key is not passed on. The server there finds the path before its own in `X-Forwarded-Prefix`.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/ports",
    tag = "ports",
    params(("id" = SandboxId, Path, description = "The machine")),
    responses((status = 200, body = PortList, description = "The ports")),
)]
pub async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, GuestCall::ListPorts)).await
}

/// Waits until something listens on a port.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/tunnels/{port}",
    tag = "ports",
    operation_id = "wait",
    params(("id" = SandboxId, Path, description = "The machine"), ("port" = u16, Path, description = "The port"), ("wait_ms" = Option<u64>, Query, description = "Wait so long, at most 60,000")),
    responses((status = 204, description = "Something listens")),
)]
pub async fn wait(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, number)): Path<(String, String)>,
    uri: Uri,
) -> ApiResult {
    let call = GuestCall::AwaitPort(port(&number)?, wait_ms(&uri)?);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

/// Connects to a port: what is sent goes there and what comes from there is answered, both at once. Each body ends where its
/// side ends. Needs HTTP/2, or nothing on the way that waits for a request's end before it passes it on.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/tunnels/{port}",
    tag = "ports",
    operation_id = "tunnel",
    params(("id" = SandboxId, Path, description = "The machine"), ("port" = u16, Path, description = "The port"), ("wait_ms" = Option<u64>, Query, description = "Wait so long, at most 60,000, for something to listen")),
    request_body(content = Binary, content_type = "application/octet-stream"),
    responses((status = 200, description = "What comes from there", body = Binary, content_type = "application/octet-stream")),
)]
pub async fn tunnel(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, number)): Path<(String, String)>,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let call = GuestCall::Tunnel(port(&number)?, wait_ms(&uri)?, stream(body));
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

/// Makes an address at which whoever has it reaches an HTTP server in the machine, without a key, until it expires.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/previews",
    tag = "ports",
    operation_id = "preview",
    params(("id" = SandboxId, Path, description = "The machine")),
    request_body(content = CreatePreview),
    responses((status = 200, body = Preview, description = "The address")),
)]
pub async fn preview(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    body: Body,
) -> ApiResult {
    let (id, request) = (sandbox_id(&id)?, json::<CreatePreview>(body).await?);
    request.validate()?;
    // Only of one's own machines.
    api.service.sandboxes.get(&caller.project, &id)?;
    let expires = now_ns() / 1_000_000_000 + request.expires_secs;
    let token = api.service.previews.sign(&id, request.port, expires);
    Ok(Json(Preview { path: format!("/preview/{token}/"), expires_at_ms: expires * 1000 }).into_response())
}

fn wait_ms(uri: &Uri) -> Result<u64, forkyard_protocol::ErrorBody> {
    Ok(query(uri, &["wait_ms"])?.number("wait_ms", 0)?.min(MAX_PORT_WAIT_MS))
}
