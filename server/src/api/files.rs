use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use forkyard_protocol::{DEFAULT_LIST_LIMIT, ErrorBody, KeyInfo, MAX_LIST_LIMIT, Query};

use super::request::{invalid, query, sandbox_id, stream};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::guest::{GuestCall, WriteOptions};

pub async fn read(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResult {
    let path = query(&uri, &["path"])?.path("path")?;
    let call = GuestCall::ReadFile(path, headers.get(header::RANGE).cloned());
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

pub async fn write(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let query = query(&uri, &["path", "mode", "user", "parents"])?;
    let call = GuestCall::WriteFile(query.path("path")?, options(&query)?, stream(body));
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

pub async fn remove(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["path", "recursive"])?;
    let call = GuestCall::RemoveFile(query.path("path")?, query.flag("recursive")?);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

pub async fn stat(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["path", "follow"])?;
    let call = GuestCall::StatFile(query.path("path")?, query.flag("follow")?);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

pub async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["path", "limit", "cursor"])?;
    let limit = query.number("limit", DEFAULT_LIST_LIMIT as u64)?;
    if !(1..=MAX_LIST_LIMIT as u64).contains(&limit) {
        return Err(invalid(format!("limit must be between 1 and {MAX_LIST_LIMIT}, not {limit}")).into());
    }
    let cursor = query.text("cursor")?.map(str::to_owned);
    let call = GuestCall::ListFiles(query.path("path")?, limit, cursor);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

pub async fn make_dir(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["path", "mode", "user", "parents"])?;
    let call = GuestCall::MakeDir(query.path("path")?, options(&query)?);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

pub async fn move_file(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["from", "to", "overwrite"])?;
    let call = GuestCall::MoveFile(query.path("from")?, query.path("to")?, query.flag("overwrite")?);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

fn options(query: &Query) -> Result<WriteOptions, ErrorBody> {
    Ok(WriteOptions {
        mode: query.mode("mode")?,
        user: query.text("user")?.map(str::to_owned),
        parents: query.flag("parents")?,
    })
}
