//! HTTP and WebSocket to servers inside machines.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri, Version, header};
use axum::response::IntoResponse as _;
use forkyard_protocol::{ErrorBody, ErrorCode, KeyInfo, ProjectId, SandboxId};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;

use super::proxy_headers::{self, Place, upgrade};
use super::request::{invalid, port, sandbox_id};
use super::{Api, ApiResult};
use crate::clock::now_ns;
use crate::tunnel;

/// How long a server in a machine may take until its answer begins.
const HEAD: Duration = Duration::from_mins(5);

/// Headers of an answer, and bytes of all of them.
const MAX_HEADERS: usize = 128;
const MAX_HEAD: usize = 64 * 1024;

/// To a port, for the holder of a key: `/v1/sandboxes/{id}/ports/{port}/…`.
pub async fn by_key(
    State(api): State<Api>,
    Extension(caller): Extension<KeyInfo>,
    Path(path): Path<Vec<(String, String)>>,
    request: Request,
) -> ApiResult {
    let field = |name: &str| path.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let (id, port) = (sandbox_id(field("id"))?, port(field("port"))?);
    let prefix = format!("/v1/sandboxes/{id}/ports/{port}");
    // As it was sent: decoded and encoded again it could be another.
    let rest = request.uri().path().splitn(6, '/').nth(5).unwrap_or_default().to_owned();
    forward(&api, &caller.project, &id, Place { port, prefix }, &rest, request, true).await
}

/// To a port, for whoever has a preview of it: `/preview/{token}/…`.
pub async fn by_preview(State(api): State<Api>, request: Request) -> ApiResult {
    let path = request.uri().path().to_owned();
    let mut segments = path.splitn(4, '/').skip(2);
    let token = segments.next().unwrap_or_default();
    let Some(rest) = segments.next() else {
        // With a slash, so that what a page names relative to itself is below it.
        let location = format!("/preview/{token}/");
        return Ok((StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response());
    };
    let (id, port) = api.service.previews.check(token, now_ns() / 1_000_000_000)?;
    let project = api.service.sandboxes.registry().owner(&id)?;
    let prefix = format!("/preview/{token}");
    forward(&api, &project, &id, Place { port, prefix }, rest, request, false).await
}

async fn forward(
    api: &Api,
    project: &ProjectId,
    id: &SandboxId,
    place: Place,
    rest: &str,
    mut request: Request,
    has_key: bool,
) -> ApiResult {
    let wants_upgrade = request.version() == Version::HTTP_11 && upgrade(request.headers()).is_some();
    let client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    proxy_headers::to_machine(&mut parts.headers, &parts.uri, &place, has_key);
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    parts.uri =
        format!("/{rest}{query}").parse::<Uri>().map_err(|error| invalid(format!("the path: {error}")))?;
    parts.version = Version::HTTP_11;
    let stream = tunnel::open(&api.service, project, id, place.port).await.map_err(as_gateway)?;
    let connection = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .handshake::<_, Body>(TokioIo::new(stream));
    let (mut sender, connection) = connection.await.map_err(|error| broken(&place, &error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a machine's port ended");
        }
    });
    let answer = timeout(HEAD, sender.send_request(Request::from_parts(parts, body))).await;
    let mut answer = answer
        .map_err(|_| {
            let message =
                format!("port {} in the machine did not answer in {} seconds", place.port, HEAD.as_secs());
            ErrorBody::new(ErrorCode::Timeout, message)
        })?
        .map_err(|error| broken(&place, &error))?;
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    proxy_headers::to_client(answer.headers_mut(), &place, switches);
    if switches {
        let Some(client) = client else {
            return Err(broken(&place, &"it switched protocols unasked").into());
        };
        tokio::spawn(converse(client, hyper::upgrade::on(&mut answer)));
    }
    Ok(answer.map(Body::new))
}

/// Passes on what two ends say once they have switched protocols, until both have ended or one has broken off.
async fn converse(client: hyper::upgrade::OnUpgrade, machine: hyper::upgrade::OnUpgrade) {
    let (Ok(client), Ok(machine)) = tokio::join!(client, machine) else { return };
    if let Err(error) = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(machine)).await {
        tracing::debug!(%error, "a conversation with a machine's port broke off");
    }
}

/// To whoever asks for a page, a server that is not there yet is one that does not answer just now.
fn as_gateway(error: ErrorBody) -> ErrorBody {
    match error.errno.as_deref() {
        Some("ECONNREFUSED") => ErrorBody { code: ErrorCode::Unavailable, ..error },
        _ => error,
    }
}

fn broken(place: &Place, error: &dyn std::fmt::Display) -> ErrorBody {
    let message = format!("port {} in the machine gave no HTTP answer: {error}", place.port);
    ErrorBody::new(ErrorCode::Unavailable, message)
}
