use std::time::Duration;

use forkyard_protocol::{ErrorBody, ErrorReply};
pub use forkyard_protocol::{ErrorCode, Resource};

/// What every call of this crate may fail with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The stable word; says by itself whether a retry can help ([`ErrorCode::is_retryable`]).
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The request as the server logged it.
    pub request_id: Option<String>,
    /// How long to wait before a retry makes sense.
    pub retry_after: Option<Duration>,
    /// The kind of thing that it is about.
    pub resource: Option<Resource>,
    /// The guest kernel's own word, such as `ENOSPC`.
    pub errno: Option<String>,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a code and a message and nothing else.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorBody::new(code, message).into()
    }

    /// Whether repeating the same call later can succeed without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }

    /// An error out of a response's body; one that is none of Forkyard's (a proxy's, say) is told by its status.
    pub(crate) fn from_response(status: u16, body: &[u8]) -> Self {
        if let Ok(reply) = serde_json::from_slice::<ErrorReply>(body) {
            return reply.error.into();
        }
        let code = match status {
            401 | 403 => ErrorCode::Unauthenticated,
            404 => ErrorCode::NotFound,
            429 => ErrorCode::RateLimited,
            502..=504 => ErrorCode::Unavailable,
            _ => ErrorCode::Internal,
        };
        Self::new(code, format!("the server answered with status {status} and no error of Forkyard's"))
    }
}

impl From<ErrorBody> for Error {
    fn from(body: ErrorBody) -> Self {
        let ErrorBody { code, message, request_id, retry_after_ms, resource, errno } = body;
        Self {
            code,
            message,
            request_id,
            retry_after: retry_after_ms.map(Duration::from_millis),
            resource,
            errno,
        }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Self {
        // Without the address: it may hold what is nobody else's business.
        let error = error.without_url();
        if error.is_builder() {
            return Self::new(ErrorCode::InvalidArgument, format!("the request cannot be made: {error}"));
        }
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        let what = if error.is_connect() { "the server cannot be reached" } else { "the connection failed" };
        Self::new(ErrorCode::Connection, format!("{what}: {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_word_arrives_whole() {
        let body =
            br#"{"error":{"code":"no_capacity","message":"full","retry_after_ms":250,"request_id":"r"}}"#;
        let error = Error::from_response(503, body);
        assert_eq!(
            (error.code, error.retry_after),
            (ErrorCode::NoCapacity, Some(Duration::from_millis(250)))
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn a_proxys_error_is_told_by_its_status() {
        assert_eq!(Error::from_response(502, b"<html>").code, ErrorCode::Unavailable);
        assert_eq!(Error::from_response(500, b"").code, ErrorCode::Internal);
    }
}
