use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use forkyard_protocol::{ErrorBody, KeyInfo, Pool, PoolId, PoolList, PoolSpec};

use super::request::{invalid, json};
use super::{Api, ApiResult};
use crate::action::Action;

/// Has machines of one kind kept ready; who asks for such a machine gets one of them.
#[utoipa::path(
    post,
    path = "/pools",
    tag = "pools",
    request_body(content = PoolSpec),
    responses((status = 201, body = Pool, description = "The pool, which begins to fill")),
)]
pub async fn create(State(api): State<Api>, Extension(caller): Extension<KeyInfo>, body: Body) -> ApiResult {
    api.perform(&caller, Action::CreatePool(json(body).await?)).await
}

/// Shows a pool: how many machines are ready, and how often one was when it was asked for.
#[utoipa::path(
    get,
    path = "/pools/{id}",
    tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    responses((status = 200, body = Pool, description = "The pool")),
)]
pub async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::GetPool(pool_id(&id)?)).await
}

/// Has a pool keep something else; machines that wait in it and are of another kind are ended.
#[utoipa::path(
    put,
    path = "/pools/{id}",
    tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    request_body(content = PoolSpec),
    responses((status = 200, body = Pool, description = "The pool")),
)]
pub async fn change(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
    body: Body,
) -> ApiResult {
    let (id, spec) = (pool_id(&id)?, json(body).await?);
    api.perform(&caller, Action::ChangePool(id, spec)).await
}

/// Lists the project's pools, newest first.
#[utoipa::path(
    get,
    path = "/pools",
    tag = "pools",
    responses((status = 200, body = PoolList, description = "The pools")),
)]
pub async fn list(State(api): State<Api>, Extension(caller): Extension<KeyInfo>) -> ApiResult {
    api.perform(&caller, Action::ListPools).await
}

/// Deletes a pool and ends the machines that wait in it; those that were claimed go on.
#[utoipa::path(
    delete,
    path = "/pools/{id}",
    tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    responses((status = 204, description = "It is deleted")),
)]
pub async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(id): Path<String>,
) -> ApiResult {
    api.perform(&caller, Action::DeletePool(pool_id(&id)?)).await
}

fn pool_id(text: &str) -> Result<PoolId, ErrorBody> {
    PoolId::parse(text).map_err(|error| invalid(error.to_string()))
}
