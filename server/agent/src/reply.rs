use std::io;

use bytes::Bytes;
use forkyard_protocol::{ErrorBody, ErrorCode, ErrorReply, MAX_JSON_BODY, Resource};
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A response's body.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A response, or the error that takes its place.
pub type Answer = Result<Response<Body>, ErrorBody>;

/// A body that is there as a whole.
pub fn full(data: impl Into<Bytes>) -> Body {
    Full::new(data.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A document.
pub fn json<T: Serialize>(value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| internal(&error))?;
    let mut response = Response::new(full(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// No content.
pub fn nothing() -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// An error as a response.
pub fn error(error: ErrorBody) -> Response<Body> {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Strings and numbers: their JSON cannot fail.
    let body = serde_json::to_vec(&ErrorReply { error }).unwrap_or_default();
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A request's document.
pub async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<T, ErrorBody> {
    let collected = Limited::new(body, MAX_JSON_BODY).collect().await;
    let bytes =
        collected.map_err(|error| invalid(format!("the body could not be read: {error}")))?.to_bytes();
    serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("the body is not the JSON wanted here: {error}")))
}

/// A bad request.
pub fn invalid(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidArgument, message)
}

/// A fault of the agent's own.
pub fn internal(error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}

/// What the kernel said about something.
pub fn os_error(error: &io::Error, about: Resource, what: &str) -> ErrorBody {
    let body = ErrorBody::new(error_code(error), format!("{what}: {}", describe(error))).about(about);
    match Errno::from_io_error(error).and_then(errno_name) {
        Some(name) => body.errno(name),
        None => body,
    }
}

fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    // Rust appends the number; the name is in a field of its own.
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn error_code(error: &io::Error) -> ErrorCode {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => ErrorCode::NotFound,
        Some(Errno::EXIST) => ErrorCode::AlreadyExists,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ErrorCode::PermissionDenied,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => ErrorCode::NoSpace,
        Some(Errno::INVAL | Errno::NAMETOOLONG) => ErrorCode::InvalidArgument,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => ErrorCode::NoCapacity,
        Some(
            Errno::NOTDIR
            | Errno::ISDIR
            | Errno::NOTEMPTY
            | Errno::XDEV
            | Errno::LOOP
            | Errno::TXTBSY
            | Errno::BUSY
            | Errno::NOEXEC
            | Errno::PIPE
            | Errno::NXIO,
        ) => ErrorCode::FailedPrecondition,
        _ => ErrorCode::Internal,
    }
}

fn errno_name(errno: Errno) -> Option<&'static str> {
    let names = [
        (Errno::NOENT, "ENOENT"),
        (Errno::EXIST, "EEXIST"),
        (Errno::ACCESS, "EACCES"),
        (Errno::PERM, "EPERM"),
        (Errno::ROFS, "EROFS"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::DQUOT, "EDQUOT"),
        (Errno::FBIG, "EFBIG"),
        (Errno::INVAL, "EINVAL"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::NOTEMPTY, "ENOTEMPTY"),
        (Errno::XDEV, "EXDEV"),
        (Errno::LOOP, "ELOOP"),
        (Errno::TXTBSY, "ETXTBSY"),
        (Errno::BUSY, "EBUSY"),
        (Errno::NOEXEC, "ENOEXEC"),
        (Errno::PIPE, "EPIPE"),
        (Errno::NXIO, "ENXIO"),
        (Errno::IO, "EIO"),
    ];
    names.into_iter().find(|(number, _)| *number == errno).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_reaches_the_caller() {
        let full = os_error(&io::Error::from(Errno::NOSPC), Resource::File, "/a");
        assert_eq!((full.code, full.errno.as_deref()), (ErrorCode::NoSpace, Some("ENOSPC")));
        assert_eq!(full.message, "/a: no space left on device");
        let missing = os_error(&io::Error::from(Errno::NOENT), Resource::File, "/a");
        assert_eq!(missing.code, ErrorCode::NotFound);
        let directory = os_error(&io::Error::from(Errno::ISDIR), Resource::File, "/a");
        assert_eq!(directory.code, ErrorCode::FailedPrecondition);
    }
}
