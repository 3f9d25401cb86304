use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use forkyard_protocol::{ErrorBody, ErrorCode};

use super::{Api, ApiError};

/// Lets a request pass that carries a key, and tells the handlers whose.
pub async fn require_key(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(key) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
        let message = "send an API key: 'Authorization: Bearer fy_…'";
        return Err(ErrorBody::new(ErrorCode::Unauthenticated, message).into());
    };
    let caller = api.service.keys.authenticate(key)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}
