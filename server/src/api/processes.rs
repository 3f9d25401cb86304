use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use forkyard_protocol::{KeyInfo, ProcessId, ProcessSpec};

use super::request::{invalid, json, offsets, process_id, query, sandbox_id, stream};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::guest::GuestCall;

/// Longest time that one call waits for a process's end, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;

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

pub async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, GuestCall::ListProcesses)).await
}

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

pub async fn signal(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, process)): Path<(String, String)>,
    body: Body,
) -> ApiResult {
    let call = GuestCall::Signal(process_id(&process)?, json(body).await?);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

pub async fn stdin(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path((id, process)): Path<(String, String)>,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let query = query(&uri, &["offset", "close"])?;
    let offset = query.optional_number("offset")?.ok_or_else(|| {
        invalid("parameter 'offset' is missing: bytes of standard input sent so far".to_owned())
    })?;
    let call = GuestCall::Stdin(process_id(&process)?, offset, query.flag("close")?, stream(body));
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}
