//! What requests are made of, checked where it comes in.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Uri};
use forkyard_protocol::{
    ErrorBody, ErrorCode, IDEMPOTENCY_KEY, MAX_JSON_BODY, ProcessId, Query, SandboxId, SnapshotId,
};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::guest::{GuestBody, Offsets};

/// A body's JSON, whatever its content type says.
pub async fn json<T: DeserializeOwned>(body: Body) -> Result<T, ErrorBody> {
    let bytes = to_bytes(body, MAX_JSON_BODY).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>) {
            let message = format!("the body must be at most {MAX_JSON_BODY} bytes long");
            return ErrorBody::new(ErrorCode::PayloadTooLarge, message);
        }
        invalid(format!("the body could not be read: {error}"))
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("the body is not the JSON wanted here: {error}")))
}

/// A body that goes into the guest as it comes.
pub fn stream(body: Body) -> GuestBody {
    body.map_err(Into::into).boxed_unsync()
}

/// A query that has no other parameters than these.
pub fn query(uri: &Uri, allowed: &[&str]) -> Result<Query, ErrorBody> {
    let query = Query::parse(uri.query().unwrap_or_default());
    query.only(allowed)?;
    Ok(query)
}

/// A sandbox's id from the path.
pub fn sandbox_id(text: &str) -> Result<SandboxId, ErrorBody> {
    SandboxId::parse(text).map_err(|error| invalid(error.to_string()))
}

/// A snapshot's id from the path.
pub fn snapshot_id(text: &str) -> Result<SnapshotId, ErrorBody> {
    SnapshotId::parse(text).map_err(|error| invalid(error.to_string()))
}

/// Whether to wait until what is asked for is made: yes, unless told otherwise.
pub fn wait(query: &Query) -> Result<bool, ErrorBody> {
    Ok(query.bytes("wait").is_none() || query.flag("wait")?)
}

/// A process's id from the path.
pub fn process_id(text: &str) -> Result<ProcessId, ErrorBody> {
    ProcessId::parse(text).map_err(|error| invalid(error.to_string()))
}

/// A port from the path.
pub fn port(text: &str) -> Result<u16, ErrorBody> {
    text.parse::<u16>()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| invalid(format!("a port must be between 1 and 65535, not '{text}'")))
}

/// Where output is taken up.
pub fn offsets(query: &Query) -> Result<Offsets, ErrorBody> {
    Ok(Offsets { stdout: query.number("stdout", 0)?, stderr: query.number("stderr", 0)? })
}

/// The name of a creating call, if it has one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ErrorBody> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let fits = (1..=128).contains(&value.len())
        && value.as_bytes().iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    match value.to_str() {
        Ok(text) if fits => Ok(Some(text.to_owned())),
        _ => Err(invalid(format!("{IDEMPOTENCY_KEY} must be 1 to 128 printable ASCII characters"))),
    }
}

pub fn invalid(message: String) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidArgument, message)
}
