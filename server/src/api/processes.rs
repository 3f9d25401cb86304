use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use forkyard_protocol::{
    KeyInfo, ProcessId, ProcessInfo, ProcessList, ProcessSpec, SandboxId, SignalRequest, StdinReply,
    validate_writer,
};

use super::openapi::Binary;
use super::request::{invalid, json, offsets, process_id, query, sandbox_id, stream};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::guest::{GuestCall, StdinPlace};

/// Longest time that one call waits for a process's end, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;

/// Starts a process, or finds the one of the same id; with `attach`, streams its output as envelopes.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/processes",
    tag = "processes",
    params(("id" = SandboxId, Path, description = "The machine"), ("attach" = Option<bool>, Query, description = "Answer with the stream of its output"), ("stdout" = Option<u64>, Query, description = "Bytes of standard output that the caller has already"), ("stderr" = Option<u64>, Query, description = "Bytes of standard error that the caller has already")),
    request_body(content = ProcessSpec),
    responses((status = 200, description = "The process, or the stream of its output", content((ProcessInfo = "application/json"), (Binary = "application/vnd.forkyard.stream")))),
)]
pub async fn start(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let query = query(&uri, &["attach", "stdout", "stderr"])?;
    let offsets = if query.flag("attach")? { Some(offsets(&query)?) } else { None };
    let mut spec: ProcessSpec = json(body).await?;
    spec.validate()?;
    if spec.id.is_none() {
        let made = format!("{}{}", ProcessId::PREFIX, ulid::Ulid::generate());
        spec.id = Some(ProcessId::parse(&made).map_err(|error| invalid(error.to_string()))?);
    }
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, GuestCall::StartProcess(Box::new(spec), offsets)))
        .await
}

/// Lists processes, oldest first.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/processes",
    tag = "processes",
    params(("id" = SandboxId, Path, description = "The machine")),
    responses((status = 200, body = ProcessList, description = "The processes")),
)]
pub async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, GuestCall::ListProcesses)).await
}

/// Shows a process.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/processes/{process}",
    tag = "processes",
    params(("id" = SandboxId, Path, description = "The machine"), ("process" = ProcessId, Path, description = "The process"), ("wait_ms" = Option<u64>, Query, description = "Wait so long, at most 60,000, for its end")),
    responses((status = 200, body = ProcessInfo, description = "The process")),
)]
pub async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, process)): Path<(String, String)>,
    uri: Uri,
) -> ApiResult {
    let wait = query(&uri, &["wait_ms"])?.number("wait_ms", 0)?.min(MAX_WAIT_MS);
    let call = GuestCall::GetProcess(process_id(&process)?, wait);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

/// Streams a process's output as envelopes, from these offsets.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/processes/{process}/output",
    tag = "processes",
    params(("id" = SandboxId, Path, description = "The machine"), ("process" = ProcessId, Path, description = "The process"), ("stdout" = Option<u64>, Query, description = "Bytes of standard output that the caller has already"), ("stderr" = Option<u64>, Query, description = "Bytes of standard error that the caller has already")),
    responses((status = 200, description = "Envelopes: kind (1 byte), length (4 bytes, big-endian), payload", body = Binary, content_type = "application/vnd.forkyard.stream")),
)]
pub async fn output(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, process)): Path<(String, String)>,
    uri: Uri,
) -> ApiResult {
    let offsets = offsets(&query(&uri, &["stdout", "stderr"])?)?;
    let call = GuestCall::Output(process_id(&process)?, offsets);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

/// Sends a signal to a process group; 9 kills everything that the process started.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/processes/{process}/signal",
    tag = "processes",
    params(("id" = SandboxId, Path, description = "The machine"), ("process" = ProcessId, Path, description = "The process")),
    request_body(content = SignalRequest),
    responses((status = 200, body = ProcessInfo, description = "The process")),
)]
pub async fn signal(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, process)): Path<(String, String)>,
    body: Body,
) -> ApiResult {
    let call = GuestCall::Signal(process_id(&process)?, json::<SignalRequest>(body).await?);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

/// Writes to standard input; bytes before the writer's own offset are skipped, so a call can be repeated.
#[utoipa::path(
    put,
    path = "/sandboxes/{id}/processes/{process}/stdin",
    tag = "processes",
    params(("id" = SandboxId, Path, description = "The machine"), ("process" = ProcessId, Path, description = "The process"), ("offset" = u64, Query, description = "Bytes of standard input that this writer sent before"), ("close" = Option<bool>, Query, description = "Close it afterwards"), ("writer" = Option<String>, Query, description = "Who writes, by a name of its own choice: each has an offset of its own; 1 to 64 of A-Z a-z 0-9 _ -")),
    request_body(content = Binary, content_type = "application/octet-stream"),
    responses((status = 200, body = StdinReply, description = "Where the next call goes on")),
)]
pub async fn stdin(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, process)): Path<(String, String)>,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let query = query(&uri, &["offset", "close", "writer"])?;
    let offset = query.optional_number("offset")?.ok_or_else(|| {
        invalid("parameter 'offset' is missing: bytes of standard input sent so far".to_owned())
    })?;
    let writer = query.text("writer")?;
    writer.map_or(Ok(()), validate_writer)?;
    let place = StdinPlace { offset, writer: writer.map(str::to_owned), close: query.flag("close")? };
    let call = GuestCall::Stdin(process_id(&process)?, place, stream(body));
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}
