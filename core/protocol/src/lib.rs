//! The wire types of Forkyard: what client, server and guest agent say to each other.
//!
//! Serde types and pure functions only: no I/O, no async runtime. `schema/v1.json` holds the JSON schema of every
//! public type; a test compares, so a change of the wire is a change of a reviewed file.
//!
//! Server and agent serve processes and files under the same paths and with the same bodies, so the server passes
//! streams through untouched: `/v1/sandboxes/{id}/processes/…` on the server is `/processes/…` in the guest.
//!
//! | call | body → answer |
//! | --- | --- |
//! | `POST /processes` | [`ProcessSpec`] → [`ProcessInfo`]; the same `id` again answers with the process that is there |
//! | `POST /processes?attach=true[&stdout=N&stderr=N]` | [`ProcessSpec`] → stream of [`Frame`]s from these offsets |
//! | `GET /processes` | → [`ProcessList`] |
//! | `GET /processes/{id}[?wait_ms=N]` | → [`ProcessInfo`], at the latest after `wait_ms` (at most 60,000), earlier once it has ended |
//! | `GET /processes/{id}/output[?stdout=N&stderr=N]` | → stream of [`Frame`]s from these offsets |
//! | `POST /processes/{id}/signal` | [`SignalRequest`] → [`ProcessInfo`] |
//! | `POST /processes/{id}/resize` | [`PtySize`] → [`ProcessInfo`] |
//! | `PUT /processes/{id}/stdin?offset=N[&close=true][&writer=W]` | raw bytes → [`StdinReply`]; bytes before this writer's own offset are skipped, a gap is refused |
//! | `GET /files?path=P` | → raw bytes; `Range: bytes=…` (one range) → 206 with `Content-Range`; 416 beyond the end |
//! | `PUT /files?path=P[&mode=0644][&user=U][&parents=true]` | raw bytes → [`FileStat`]; written beside, synced, renamed |
//! | `DELETE /files?path=P[&recursive=true]` | → 204 |
//! | `GET /files/stat?path=P[&follow=true]` | → [`FileStat`] |
//! | `GET /files/list?path=P[&limit=N][&cursor=C]` | → [`FileList`] |
//! | `POST /files/mkdir?path=P[&parents=true][&mode=0755][&user=U]` | → [`FileStat`] |
//! | `POST /files/move?from=P&to=P[&overwrite=true]` | → [`FileStat`] of the target |
//! | `GET /files/tree?path=P` | → a folder as a tar stream, its last entry a [`TreeSummary`] or an [`ErrorBody`] in a global header |
//! | `PUT /files/tree?path=P[&user=U][&parents=true]` | a tar stream → [`TreeSummary`]; over what has the same names, nothing is removed |
//! | `GET /files/watch?path=P[&recursive=true]` | → stream of [`FileEvent`]s, a line of JSON each; it ends with the folder |
//! | `GET /ports` | → [`PortList`] |
//! | `GET /tunnels/{port}[?wait_ms=N]` | → 204 once something listens there, waiting at most `wait_ms` (at most 60,000) |
//! | `POST /tunnels/{port}[?wait_ms=N]` | raw bytes to the port → raw bytes from it, both at once |
//! | `DELETE /processes/{id}` (guest only) | → [`GuestHealth`]; a process that has ended is forgotten |
//! | `GET /health` (guest only) | → [`GuestHealth`] |
//! | `POST /network/reset` (guest only) | → [`GuestHealth`]; connections over the network card are reset |
//! | `POST /network/prepare` (guest only) | → [`GuestHealth`]; what can be done before the network is needed is done |
//! | `POST /configure` (guest only) | [`GuestConfig`] → [`GuestHealth`] |
//! | `POST /given` (guest only) | [`GuestFiles`] → [`MissingFiles`], which are to be sent again with their contents |
//!
//! Errors are [`ErrorReply`] with the status of [`ErrorCode::http_status`].

mod agent;
mod envelope;
mod error;
mod event;
mod file;
mod id;
mod image;
mod key;
mod managed;
mod network;
mod pool;
mod port;
mod process;
mod pty;
mod query;
mod retention;
mod sandbox;
#[cfg(test)]
mod schema;
mod server;
mod snapshot;
mod timeout;
mod watch;

pub use agent::{
    ECHO_LEN, GuestConfig, GuestFile, GuestFiles, GuestHealth, MissingFiles, PREAMBLE_LEN, PREAMBLE_MAGIC,
    Preamble, echo,
};
pub use envelope::{
    Decoder, ENVELOPE_HEADER_LEN, Envelope, EnvelopeError, Frame, MAX_ENVELOPE_LEN, encode_envelope,
};
pub use error::{ErrorBody, ErrorCode, ErrorReply, Resource};
pub use event::{SandboxEvent, SandboxEventKind, SandboxEventList};
pub use file::{
    DEFAULT_LIST_LIMIT, FileKind, FileList, FileStat, MAX_LIST_LIMIT, MAX_PATH_LEN, MAX_SKIPPED_PATHS,
    PathError, RawPath, TreeSummary,
};
pub use id::{
    InvalidId, KeyId, PoolId, ProcessId, ProjectId, SandboxId, SnapshotId, validate_label, validate_name,
};
pub use image::{ImageInfo, ImageList};
pub use key::{CreateKey, CreatedKey, KeyInfo, KeyList, Scope};
pub use managed::{
    HealthCheck, MAX_BACKOFF_MS, MAX_CHECK_MS, MAX_CHECK_RETRIES, MIN_BACKOFF_MS, MIN_CHECK_MS,
    RestartPolicy, RestartWhen, STEADY_MS,
};
pub use network::{
    InvalidRule, MAX_BANDWIDTH_KBPS, MAX_NETWORK_CONNECTIONS, MAX_NETWORK_RULES, MIN_BANDWIDTH_KBPS,
    NetworkCounters, NetworkEvent, NetworkEventKind, NetworkEventList, NetworkInfo, NetworkLink,
    NetworkPolicy, NetworkProtocol, NetworkRule, NetworkVerdict, RuleHost, link, normal_name,
};
pub use pool::{MAX_READY, Pool, PoolList, PoolSpec};
pub use port::{
    CreatePreview, ListeningPort, MAX_PORT_WAIT_MS, MAX_PREVIEW_SECS, PortList, Preview, validate_port,
};
pub use process::{
    ExitStatus, MAX_ARGS, MAX_ARGS_BYTES, MAX_PROCESS_TIMEOUT_MS, OutputStream, ProcessInfo, ProcessList,
    ProcessSpec, ProcessState, SignalRequest, StdinReply,
};
pub use pty::{MAX_HANGUP_MS, MAX_PTY_SIDE, PtySize, PtySpec, validate_writer};
pub use query::Query;
pub use retention::{MAX_AGE_SECS, RetentionPolicy, WhenFull};
pub use sandbox::{
    CreateSandbox, DEFAULT_CPUS, DEFAULT_IMAGE, DEFAULT_MEMORY_MB, MAX_CPUS, MAX_LABELS, MAX_MEMORY_MB,
    MAX_QUEUE_TIMEOUT_SECS, MAX_TIMEOUT_SECS, MIN_MEMORY_MB, Sandbox, SandboxPage, SandboxStatus, Stage,
};
pub use server::{Capacity, Health, ServerInfo};
pub use snapshot::{
    CheckpointType, CreateSnapshot, ForkSandbox, MAX_FORKS, RestoreSandbox, SandboxList, Snapshot,
    SnapshotList, SnapshotStatus,
};
pub use timeout::ExtendTimeout;
pub use watch::{EVENTS_MEDIA_TYPE, FileEvent, FileEventKind, MAX_EVENT_LEN, MAX_WATCHED_FOLDERS};

/// Largest JSON body that server and agent accept, in bytes.
pub const MAX_JSON_BODY: usize = 1024 * 1024;

/// Header that names a creating call, so that repeating it has no second effect (1 to 128 printable ASCII characters).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Header that names one request in logs and errors; the server makes one where the client sent none.
pub const REQUEST_ID: &str = "x-request-id";

/// Media type of a body of [`Envelope`]s.
pub const ENVELOPE_MEDIA_TYPE: &str = "application/vnd.forkyard.stream";
