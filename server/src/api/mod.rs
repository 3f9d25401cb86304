//! The HTTP API: requests become actions, replies become responses, and nothing is decided here.

mod auth;
mod error;
mod files;
mod keys;
mod processes;
mod relay;
mod request;
mod sandboxes;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{delete, get, post, put};
use forkyard_protocol::{ErrorBody, ErrorCode, Health, KeyInfo};
use tokio_util::sync::CancellationToken;

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
    let guarded = Router::new()
        .route("/server", get(sandboxes::server_info))
        .route("/images", get(sandboxes::list_images))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{key_id}", delete(keys::revoke))
        .route("/sandboxes", get(sandboxes::list).post(sandboxes::create))
        .route("/sandboxes/{id}", get(sandboxes::get).delete(sandboxes::terminate))
        .route("/sandboxes/{id}/processes", get(processes::list).post(processes::start))
        .route("/sandboxes/{id}/processes/{process}", get(processes::get))
        .route("/sandboxes/{id}/processes/{process}/output", get(processes::output))
        .route("/sandboxes/{id}/processes/{process}/signal", post(processes::signal))
        .route("/sandboxes/{id}/processes/{process}/stdin", put(processes::stdin))
        .route("/sandboxes/{id}/files", get(files::read).put(files::write).delete(files::remove))
        .route("/sandboxes/{id}/files/stat", get(files::stat))
        .route("/sandboxes/{id}/files/list", get(files::list))
        .route("/sandboxes/{id}/files/mkdir", post(files::make_dir))
        .route("/sandboxes/{id}/files/move", post(files::move_file))
        .layer(from_fn_with_state(api.clone(), auth::require_key));
    Router::new()
        .route("/healthz", get(health))
        .nest("/v1", guarded)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(error::add_request_id))
        .with_state(api)
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
