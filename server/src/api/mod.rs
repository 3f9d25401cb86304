//! The HTTP API: requests become actions, replies become responses, and nothing is decided here.

mod auth;
mod error;
mod events;
mod files;
mod folders;
mod keys;
mod network;
mod openapi;
mod pools;
mod ports;
mod processes;
mod proxy;
mod proxy_headers;
mod relay;
mod request;
mod sandboxes;
mod snapshots;
mod terminals;
mod timeout;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{any, get};
use forkyard_protocol::{ErrorBody, ErrorCode, Health, KeyInfo, SnapshotStatus};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::error::ApiError;
use crate::action::{Action, Reply, Service};

/// What every handler shares.
#[derive(Clone)]
pub struct Api {
    /// Performs the actions.
    pub service: Arc<Service>,
    /// Cancelled once the server stops.
    pub stopping: CancellationToken,
}

type ApiResult = Result<Response, ApiError>;

impl Api {
    async fn perform(&self, caller: &KeyInfo, action: Action) -> ApiResult {
        Ok(respond(self.service.perform(caller, action).await?))
    }
}

/// The routes, and what stands before all of them.
pub fn router(api: Api) -> Router {
    let (guarded, document) = routes().split_for_parts();
    let document = openapi::complete(document);
    let guarded = guarded
        .route("/sandboxes/{id}/ports/{port}", any(proxy::by_key))
        .route("/sandboxes/{id}/ports/{port}/", any(proxy::by_key))
        .route("/sandboxes/{id}/ports/{port}/{*path}", any(proxy::by_key))
        .route("/openapi.json", get(move || async move { Json(document) }))
        .layer(from_fn_with_state(api.clone(), auth::require_key));
    Router::new()
        .route("/healthz", get(health))
        .route("/preview/{token}", any(proxy::by_preview))
        .route("/preview/{token}/", any(proxy::by_preview))
        .route("/preview/{token}/{*path}", any(proxy::by_preview))
        .nest("/v1", guarded)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(error::add_request_id))
        .with_state(api)
}

/// The routes and what the document says of them: one list, so that they cannot part.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(sandboxes::server_info))
        .routes(routes!(sandboxes::list_images))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(sandboxes::list, sandboxes::create))
        .routes(routes!(sandboxes::get, sandboxes::terminate))
        .routes(routes!(events::list))
        .routes(routes!(timeout::extend_timeout))
        .routes(routes!(snapshots::create))
        .routes(routes!(snapshots::fork))
        .routes(routes!(snapshots::suspend))
        .routes(routes!(snapshots::resume))
        .routes(routes!(snapshots::restore))
        .routes(routes!(snapshots::list))
        .routes(routes!(snapshots::get, snapshots::delete))
        .routes(routes!(snapshots::retention, snapshots::set_retention))
        .routes(routes!(pools::list, pools::create))
        .routes(routes!(pools::get, pools::change, pools::delete))
        .routes(routes!(network::get, network::set))
        .routes(routes!(network::events))
        .routes(routes!(ports::list))
        .routes(routes!(ports::wait, ports::tunnel))
        .routes(routes!(ports::preview))
        .routes(routes!(processes::list, processes::start))
        .routes(routes!(processes::get))
        .routes(routes!(processes::output))
        .routes(routes!(processes::signal))
        .routes(routes!(terminals::resize))
        .routes(routes!(processes::stdin))
        .routes(routes!(files::read, files::write, files::remove))
        .routes(routes!(files::stat))
        .routes(routes!(files::list))
        .routes(routes!(folders::read, folders::write))
        .routes(routes!(folders::watch))
        .routes(routes!(files::make_dir))
        .routes(routes!(files::move_file))
}

/// The OpenAPI document.
pub fn document() -> utoipa::openapi::OpenApi {
    openapi::complete(routes().into_openapi())
}

async fn health(State(api): State<Api>) -> Response {
    let (status, word) = if api.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else {
        (StatusCode::OK, "ok")
    };
    (status, Json(Health { status: word.to_owned() })).into_response()
}

async fn no_such_route(uri: Uri) -> ApiError {
    ErrorBody::new(ErrorCode::NotFound, format!("there is nothing at {}", uri.path())).into()
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    ErrorBody::new(ErrorCode::InvalidArgument, format!("{method} is not allowed at {}", uri.path())).into()
}

fn respond(reply: Reply) -> Response {
    match reply {
        Reply::Created(sandbox) => {
            let made = sandbox.status != forkyard_protocol::SandboxStatus::Pending;
            let status = if made { StatusCode::CREATED } else { StatusCode::ACCEPTED };
            (status, Json(sandbox)).into_response()
        }
        Reply::Sandbox(sandbox) => Json(sandbox).into_response(),
        Reply::Sandboxes(page) => Json(page).into_response(),
        Reply::SnapshotCreated(snapshot) => {
            let made = snapshot.status != SnapshotStatus::InProgress;
            let status = if made { StatusCode::CREATED } else { StatusCode::ACCEPTED };
            (status, Json(snapshot)).into_response()
        }
        Reply::Snapshot(snapshot) => Json(snapshot).into_response(),
        Reply::Snapshots(snapshots) => Json(snapshots).into_response(),
        Reply::Retention(policy) => Json(policy).into_response(),
        Reply::Forks(forks) => (StatusCode::CREATED, Json(forks)).into_response(),
        Reply::PoolCreated(pool) => (StatusCode::CREATED, Json(pool)).into_response(),
        Reply::Pool(pool) => Json(pool).into_response(),
        Reply::Pools(pools) => Json(pools).into_response(),
        Reply::Network(network) => Json(network).into_response(),
        Reply::SandboxEvents(events) => Json(events).into_response(),
        Reply::NetworkEvents(events) => Json(events).into_response(),
        Reply::Images(images) => Json(images).into_response(),
        Reply::Server(server) => Json(server).into_response(),
        Reply::KeyCreated(created) => (StatusCode::CREATED, Json(created)).into_response(),
        Reply::Keys(keys) => Json(keys).into_response(),
        Reply::Done => StatusCode::NO_CONTENT.into_response(),
        Reply::Guest(guest) => relay::respond(guest),
    }
}

#[cfg(test)]
mod tests;
