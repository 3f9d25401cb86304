use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use forkyard_protocol::{CreateKey, CreatedKey, KeyId, KeyInfo, KeyList};

use super::request::{invalid, json};
use super::{Api, ApiResult};
use crate::action::Action;

/// Makes an API key; its secret is shown this once. Needs scope `admin`.
#[utoipa::path(
    post,
    path = "/keys",
    tag = "keys",
    request_body(content = CreateKey),
    responses((status = 201, body = CreatedKey, description = "The key with its secret")),
)]
pub async fn create(State(api): State<Api>, Extension(caller): Extension<KeyInfo>, body: Body) -> ApiResult {
    api.perform(&caller, Action::CreateKey(json::<CreateKey>(body).await?)).await
}

/// Lists the API keys without their secrets. Needs scope `admin`.
#[utoipa::path(
    get,
    path = "/keys",
    tag = "keys",
    responses((status = 200, body = KeyList, description = "The keys")),
)]
pub async fn list(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::ListKeys).await
}

/// Revokes an API key at once. Needs scope `admin`.
#[utoipa::path(
    delete,
    path = "/keys/{key_id}",
    tag = "keys",
    params(("key_id" = KeyId, Path, description = "The key's public half")),
    responses((status = 204, description = "It is revoked")),
)]
pub async fn revoke(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(key_id): Path<String>,
) -> ApiResult {
    let key_id = KeyId::parse(&key_id).map_err(|error| invalid(error.to_string()))?;
    api.perform(&caller, Action::RevokeKey(key_id)).await
}
