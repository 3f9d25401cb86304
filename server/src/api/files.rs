use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use forkyard_protocol::{
    DEFAULT_LIST_LIMIT, ErrorBody, FileList, FileStat, KeyInfo, MAX_LIST_LIMIT, Query, SandboxId,
};

use super::openapi::Binary;
use super::request::{invalid, query, sandbox_id, stream};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::guest::{GuestCall, WriteOptions};

/// Reads a file, or the `Range` of it.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`"), ("range" = Option<String>, Header, description = "One range of bytes")),
    responses((status = 200, description = "The contents", body = Binary, content_type = "application/octet-stream"), (status = 206, description = "The range", body = Binary, content_type = "application/octet-stream"), (status = 416, description = "The range lies beyond the end")),
)]
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

/// Replaces a file as a whole.
#[utoipa::path(
    put,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`"), ("mode" = Option<String>, Query, description = "Permission bits in octal, such as 0644"), ("user" = Option<String>, Query, description = "Owner; default: the image's user"), ("parents" = Option<bool>, Query, description = "Make missing folders above")),
    request_body(content = Binary, content_type = "application/octet-stream"),
    responses((status = 200, body = FileStat, description = "The file")),
)]
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

/// Removes a file or a folder.
#[utoipa::path(
    delete,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`"), ("recursive" = Option<bool>, Query, description = "With all that is in it")),
    responses((status = 204, description = "It is gone")),
)]
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

/// Shows a file's attributes.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files/stat",
    tag = "files",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`"), ("follow" = Option<bool>, Query, description = "Those of a link's target")),
    responses((status = 200, body = FileStat, description = "The file")),
)]
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

/// Lists a folder by name.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files/list",
    tag = "files",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`"), ("limit" = Option<u64>, Query, description = "At most so many, 1 to 10,000; default: 1,000"), ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before")),
    responses((status = 200, body = FileList, description = "One page")),
)]
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

/// Makes a folder.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/files/mkdir",
    tag = "files",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`"), ("mode" = Option<String>, Query, description = "Permission bits in octal, such as 0644"), ("user" = Option<String>, Query, description = "Owner; default: the image's user"), ("parents" = Option<bool>, Query, description = "Make missing folders above")),
    responses((status = 200, body = FileStat, description = "The folder")),
)]
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

/// Moves a file or folder within one file system.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/files/move",
    tag = "files",
    params(("id" = SandboxId, Path, description = "The machine"), ("from" = String, Query, description = "Absolute path, percent-encoded"), ("to" = String, Query, description = "Absolute path, percent-encoded"), ("overwrite" = Option<bool>, Query, description = "Over another file")),
    responses((status = 200, body = FileStat, description = "The target")),
)]
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

pub(super) fn options(query: &Query) -> Result<WriteOptions, ErrorBody> {
    Ok(WriteOptions {
        mode: query.mode("mode")?,
        user: query.text("user")?.map(str::to_owned),
        parents: query.flag("parents")?,
    })
}
