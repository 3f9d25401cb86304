use std::time::Duration;

use forkyard::{ErrorCode, Resource};

/// Error is what every call of this module fails with.
#[derive(Debug, uniffi::Error)]
pub enum Error {
    /// The one kind of error there is; the code says what happened.
    Failed {
        /// Code is the stable word; it says by itself whether a retry can help.
        code: Code,
        /// Message says what was wrong, what is allowed and what to do; for people.
        message: String,
        /// Retryable says whether repeating the same call later can succeed without anybody changing anything.
        retryable: bool,
        /// RequestID is the request that failed, as the server logged it; empty if none reached a server.
        request_id: String,
        /// RetryAfter is how long to wait before a retry makes sense; 0 where the server said nothing.
        retry_after: Duration,
        /// Resource is the kind of thing that is missing, taken or in the wrong state: sandbox, process, file, image,
        /// snapshot, user, key or pool.
        resource: String,
        /// Errno is the guest kernel's own word where a system call failed, such as ENOSPC.
        errno: String,
    },
}

/// Code is what went wrong, as a stable word.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum Code {
    /// The request is not well formed or a value is out of range.
    InvalidArgument,
    /// No key, or one that is not known or was revoked.
    Unauthenticated,
    /// The key, or the user inside the machine, may not do this.
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
    /// A disk is full: the machine's or the host's, as the message says.
    NoSpace,
    /// The server is starting or stopping, or the machine does not answer just now.
    Unavailable,
    /// The machine is gone: it crashed, was killed or was terminated while the call ran.
    SandboxLost,
    /// A snapshot's files are not what was written; nothing is made of it.
    SnapshotCorrupt,
    /// The call's deadline passed, the client's or the context's.
    Timeout,
    /// The context was cancelled.
    Cancelled,
    /// The server could not be reached, or the connection broke and could not be taken up again.
    Connection,
    /// A fault of Forkyard itself.
    Internal,
    /// A command that was to be checked did not exit with 0; made by this module.
    CommandFailed,
}

impl Error {
    /// A value that is wrong before anything is sent.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        forkyard::Error::new(ErrorCode::InvalidArgument, message).into()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Failed { message, .. } = self;
        f.write_str(message)
    }
}

impl std::error::Error for Error {}

impl From<forkyard::Error> for Error {
    fn from(error: forkyard::Error) -> Self {
        let retryable = error.is_retryable();
        // Without `..`: a new field breaks the build until it is carried.
        let forkyard::Error { code, message, request_id, retry_after, resource, errno } = error;
        Self::Failed {
            code: code.into(),
            message,
            retryable,
            request_id: request_id.unwrap_or_default(),
            retry_after: retry_after.unwrap_or_default(),
            resource: resource.map(word).unwrap_or_default().to_owned(),
            errno: errno.unwrap_or_default(),
        }
    }
}

impl From<forkyard::InvalidId> for Error {
    fn from(error: forkyard::InvalidId) -> Self {
        Self::invalid(error.to_string())
    }
}

fn word(resource: Resource) -> &'static str {
    match resource {
        Resource::Sandbox => "sandbox",
        Resource::Process => "process",
        Resource::File => "file",
        Resource::Image => "image",
        Resource::Snapshot => "snapshot",
        Resource::User => "user",
        Resource::Key => "key",
        Resource::Pool => "pool",
    }
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidArgument => Self::InvalidArgument,
            ErrorCode::Unauthenticated => Self::Unauthenticated,
            ErrorCode::PermissionDenied => Self::PermissionDenied,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::AlreadyExists => Self::AlreadyExists,
            ErrorCode::FailedPrecondition => Self::FailedPrecondition,
            ErrorCode::PayloadTooLarge => Self::PayloadTooLarge,
            ErrorCode::QuotaExceeded => Self::QuotaExceeded,
            ErrorCode::RateLimited => Self::RateLimited,
            ErrorCode::NoCapacity => Self::NoCapacity,
            ErrorCode::NoSpace => Self::NoSpace,
            ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::SandboxLost => Self::SandboxLost,
            ErrorCode::SnapshotCorrupt => Self::SnapshotCorrupt,
            ErrorCode::Timeout => Self::Timeout,
            ErrorCode::Cancelled => Self::Cancelled,
            ErrorCode::Connection => Self::Connection,
            ErrorCode::Internal => Self::Internal,
        }
    }
}
