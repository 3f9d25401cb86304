use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use forkyard_protocol::{KeyId, KeyInfo};

use super::request::{invalid, json};
use super::{Api, ApiResult};
use crate::action::Action;

pub async fn create(State(api): State<Api>, Extension(caller): Extension<KeyInfo>, body: Body) -> ApiResult {
    api.perform(&caller, Action::CreateKey(json(body).await?)).await
}

pub async fn list(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::ListKeys).await
}

pub async fn revoke(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(key_id): Path<String>,
) -> ApiResult {
    let key_id = KeyId::parse(&key_id).map_err(|error| invalid(error.to_string()))?;
    api.perform(&caller, Action::RevokeKey(key_id)).await
}
