use serde::{Deserialize, Serialize};

/// Media type of a stream of [`FileEvent`]s: each is a line of JSON. An empty line says that the stream lives.
pub const EVENTS_MEDIA_TYPE: &str = "application/x-ndjson";

/// Most folders that one watch covers.
pub const MAX_WATCHED_FOLDERS: usize = 8192;

/// Longest line of a stream of events, in bytes: two paths in JSON.
pub const MAX_EVENT_LEN: usize = 64 * 1024;

/// What happened to a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum FileEventKind {
    /// It is there now: made, or moved in from elsewhere.
    Created,
    /// Its contents changed.
    Modified,
    /// Its permissions, owner or times changed.
    Attributes,
    /// It has another name now; `from` is the one before.
    Moved,
    /// It is gone: deleted, or moved out.
    Removed,
    /// More happened than was kept, or than can be watched: whoever needs to know looks again.
    Overflow,
}

/// One thing that happened below a watched folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileEvent {
    /// What happened.
    pub kind: FileEventKind,
    /// To what: an absolute path, with U+FFFD in place of what is not UTF-8.
    pub path: String,
    /// The path before, of what was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether it is a folder.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_dir: bool,
}
