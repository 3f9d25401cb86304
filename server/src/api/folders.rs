use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Uri;
use forkyard_protocol::{FileEvent, KeyInfo, SandboxId, TreeSummary};

use super::files::options;
use super::openapi::Binary;
use super::request::{query, sandbox_id, stream};
use super::{Api, ApiResult};
use crate::action::Action;
use crate::guest::GuestCall;

/// Fetches a folder with all that is in it as a tar stream. Devices, pipes and sockets are left out.
///
/// The last entry is a global header (POSIX.1-2001, pax) with a record `FORKYARD.summary`, a `TreeSummary`, or
/// `FORKYARD.error`, an `ErrorBody` that says why the stream ends early. A stream without one was cut.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files/tree",
    tag = "files",
    operation_id = "read_tree",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`")),
    responses((status = 200, description = "The folder", body = Binary, content_type = "application/x-tar")),
)]
pub async fn read(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let path = query(&uri, &["path"])?.path("path")?;
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, GuestCall::ReadTree(path))).await
}

/// Unpacks a tar stream into a folder: files, folders and symbolic links, and nothing that leads out of it.
///
/// A folder that is not there appears as a whole. Into one that is there everything is put, each file as a whole, over what has
/// the same name; nothing is removed.
#[utoipa::path(
    put,
    path = "/sandboxes/{id}/files/tree",
    tag = "files",
    operation_id = "write_tree",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`"), ("user" = Option<String>, Query, description = "Owner of all of it; default: the image's user"), ("parents" = Option<bool>, Query, description = "Make missing folders above")),
    request_body(content = Binary, content_type = "application/x-tar"),
    responses((status = 200, body = TreeSummary, description = "What was unpacked")),
)]
pub async fn write(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
    body: Body,
) -> ApiResult {
    let query = query(&uri, &["path", "user", "parents"])?;
    let call = GuestCall::WriteTree(query.path("path")?, options(&query)?, stream(body));
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}

/// Watches a folder: streams what happens to what is in it, from the answer on, each event a line of JSON. An empty line says that
/// the stream lives. It ends with the folder itself. Up to 8,192 folders, and 64 watches in a machine at once.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files/watch",
    tag = "files",
    operation_id = "watch",
    params(("id" = SandboxId, Path, description = "The machine"), ("path" = String, Query, description = "Absolute path, percent-encoded; any bytes but NUL, no `..`"), ("recursive" = Option<bool>, Query, description = "With all below it")),
    responses((status = 200, description = "Events, a line each", body = FileEvent, content_type = "application/x-ndjson")),
)]
pub async fn watch(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    uri: Uri,
) -> ApiResult {
    let query = query(&uri, &["path", "recursive"])?;
    let call = GuestCall::WatchFiles(query.path("path")?, query.flag("recursive")?);
    api.perform(&caller, Action::Guest(sandbox_id(&id)?, call)).await
}
