use serde::{Deserialize, Serialize};

/// What went wrong, as a stable word. Few codes; each says by itself whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ErrorCode {
    /// The request is not well formed or a value is out of range.
    InvalidArgument,
    /// No key, or one that is not known or was revoked.
    Unauthenticated,
    /// The key, or the user inside the guest, may not do this.
    PermissionDenied,
    /// No such thing, or it belongs to another project.
    NotFound,
    /// A thing of that name is there already.
    AlreadyExists,
    /// The thing is in a state that does not allow the call.
    FailedPrecondition,
    /// The body is larger than the server takes.
    PayloadTooLarge,
    /// A budget of the key or the project is used up.
    QuotaExceeded,
    /// Too many requests from this key.
    RateLimited,
    /// The host has no room for another machine just now.
    NoCapacity,
    /// A disk is full: the guest's or the host's, as the message says.
    NoSpace,
    /// The server is starting or stopping, or the guest does not answer just now.
    Unavailable,
    /// The machine is gone: it crashed, was killed or was terminated while the call ran.
    SandboxLost,
    /// A snapshot's files are not what was written: nothing is made of it.
    SnapshotCorrupt,
    /// The call's deadline passed.
    Timeout,
    /// The caller cancelled.
    Cancelled,
    /// The connection failed. Made by clients; a server never sends it.
    Connection,
    /// A fault of Forkyard itself.
    Internal,
}

impl ErrorCode {
    /// Whether repeating the same call later can succeed without anybody changing anything.
    ///
    /// `QuotaExceeded` is not among them: the caller's own machines use the budget up, and waiting for oneself hangs.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::NoCapacity | Self::Unavailable | Self::Connection)
    }

    /// The HTTP status that carries this code.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::Unauthenticated => 401,
            Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::FailedPrecondition => 409,
            Self::SandboxLost => 410,
            Self::PayloadTooLarge => 413,
            Self::QuotaExceeded | Self::RateLimited => 429,
            Self::Cancelled => 499,
            Self::Internal | Self::SnapshotCorrupt => 500,
            Self::NoCapacity | Self::Unavailable | Self::Connection => 503,
            Self::Timeout => 504,
            Self::NoSpace => 507,
        }
    }

    /// The word on the wire, such as `no_capacity`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::FailedPrecondition => "failed_precondition",
            Self::PayloadTooLarge => "payload_too_large",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RateLimited => "rate_limited",
            Self::NoCapacity => "no_capacity",
            Self::NoSpace => "no_space",
            Self::Unavailable => "unavailable",
            Self::SandboxLost => "sandbox_lost",
            Self::SnapshotCorrupt => "snapshot_corrupt",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Connection => "connection",
            Self::Internal => "internal",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of thing an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Resource {
    /// A machine.
    Sandbox,
    /// A process in a machine.
    Process,
    /// A file or folder in a machine.
    File,
    /// An image.
    Image,
    /// A snapshot.
    Snapshot,
    /// A user account in a machine.
    User,
    /// An API key.
    Key,
    /// A pool.
    Pool,
}

/// Every error's body: `{"error": {"code": …, "message": …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorReply {
    /// The error.
    pub error: ErrorBody,
}

/// One error: what was wrong, what is allowed, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// The stable word.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The request that failed, as the server logged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Milliseconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The kind of thing that is missing, taken or in the wrong state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// The guest kernel's own word where a system call failed, such as `ENOSPC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
}

impl ErrorBody {
    /// An error with a code and a message and nothing else.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            request_id: None,
            retry_after_ms: None,
            resource: None,
            errno: None,
        }
    }

    /// The same error, about a thing of this kind.
    #[must_use]
    pub fn about(mut self, resource: Resource) -> Self {
        self.resource = Some(resource);
        self
    }

    /// The same error, worth a retry after so many milliseconds.
    #[must_use]
    pub fn retry_after_ms(mut self, millis: u64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }

    /// The same error with the guest kernel's word for it.
    #[must_use]
    pub fn errno(mut self, errno: impl Into<String>) -> Self {
        self.errno = Some(errno.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_on_the_wire_is_as_str() {
        for code in
            [ErrorCode::NoCapacity, ErrorCode::SandboxLost, ErrorCode::InvalidArgument, ErrorCode::Internal]
        {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
    }

    #[test]
    fn only_passing_conditions_are_retryable() {
        assert!(ErrorCode::NoCapacity.is_retryable());
        assert!(!ErrorCode::QuotaExceeded.is_retryable());
        assert!(!ErrorCode::Internal.is_retryable());
        assert!(!ErrorCode::SandboxLost.is_retryable());
    }
}
