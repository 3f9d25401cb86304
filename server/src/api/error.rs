use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use forkyard_protocol::{ErrorBody, ErrorReply, REQUEST_ID};

/// An error on its way out. The request's id is added once, where all responses pass.
#[derive(Debug)]
pub struct ApiError(ErrorBody);

impl From<ErrorBody> for ApiError {
    fn from(error: ErrorBody) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// A path without what is secret in it: who has a preview's needs no key.
fn loggable(path: &str) -> String {
    if path.starts_with("/preview/") { "/preview/…".to_owned() } else { path.to_owned() }
}

/// Names each request in its response, its error and the log.
pub async fn add_request_id(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .filter(|value| (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic))
        .cloned();
    let id = id.or_else(|| HeaderValue::from_str(&ulid::Ulid::generate().to_string()).ok());
    let (method, path) = (request.method().clone(), loggable(request.uri().path()));
    let mut response = next.run(request).await;
    let text = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    if let Some(mut error) = response.extensions_mut().remove::<ErrorBody>() {
        tracing::info!(request = text, %method, path, code = %error.code, message = error.message, "refused");
        error.request_id = Some(text.to_owned());
        let retry_after = error.retry_after_ms;
        response = (response.status(), Json(ErrorReply { error })).into_response();
        if let Some(millis) = retry_after {
            // The header knows whole seconds only; the body has the exact time.
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000)));
        }
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
