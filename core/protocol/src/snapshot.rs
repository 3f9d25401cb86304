use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sandbox::{validate_env, validate_labels, validate_timeout};
use crate::{ErrorBody, ErrorCode, NetworkPolicy, SandboxId, SnapshotId, validate_name};

/// Most forks of one call.
pub const MAX_FORKS: u32 = 1000;

/// What of a machine a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum CheckpointType {
    /// Its disk: a machine of it boots, with any number of processors and any memory.
    #[default]
    Filesystem,
    /// Its disk and its memory: a machine of it goes on from the very instruction, with the processors and memory it had.
    Memory,
}

/// Where a snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SnapshotStatus {
    /// It is being written; its machine runs on meanwhile.
    InProgress,
    /// It is on disk, whole.
    Completed,
    /// It could not be made; `reason` says why.
    Failed,
}

/// Asks for a snapshot: `POST /v1/sandboxes/{id}/snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreateSnapshot {
    /// What it holds. Default: `filesystem`.
    #[serde(default)]
    pub checkpoint_type: CheckpointType,
    /// A name for people; need not be unique. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The caller's own marks, at most 64.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the project's retention policy leaves it alone. Default: false.
    #[serde(default)]
    pub retain: bool,
}

impl CreateSnapshot {
    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        if let Some(name) = &self.name {
            validate_name(name)
                .map_err(|error| ErrorBody::new(ErrorCode::InvalidArgument, error.to_string()))?;
        }
        validate_labels(&self.labels)
    }
}

/// Asks for twins of a running machine: `POST /v1/sandboxes/{id}/fork`, with an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForkSandbox {
    /// How many, 1 to 1,000. Default: 1.
    #[serde(default = "default_count")]
    pub count: u32,
    /// Added to the original's environment, for processes that start in the forks.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The forks' marks. Default: the original's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The forks' idle time-out in seconds. Default: the original's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u64>,
    /// What the forks may reach, in the place of what the original may. Default: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkPolicy>,
}

fn default_count() -> u32 {
    1
}

impl Default for ForkSandbox {
    fn default() -> Self {
        Self { count: default_count(), env: BTreeMap::new(), labels: None, timeout_secs: None, network: None }
    }
}

impl ForkSandbox {
    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        if !(1..=MAX_FORKS).contains(&self.count) {
            let message = format!("count must be between 1 and {MAX_FORKS}, not {}", self.count);
            return Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
        }
        self.timeout_secs.map_or(Ok(()), validate_timeout)?;
        self.labels.as_ref().map_or(Ok(()), validate_labels)?;
        self.network.as_ref().map_or(Ok(()), NetworkPolicy::validate)?;
        validate_env(&self.env)
    }
}

/// Puts a machine back to where a snapshot stands: `POST /v1/sandboxes/{id}/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RestoreSandbox {
    /// The snapshot. One with memory must be of a machine with as many processors and as much memory.
    pub snapshot_id: SnapshotId,
}

/// A snapshot as the API shows it. It never changes once it is `completed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// Its id.
    pub snapshot_id: SnapshotId,
    /// What it holds.
    pub checkpoint_type: CheckpointType,
    /// Where it stands.
    pub status: SnapshotStatus,
    /// Why it failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The machine that it was taken of.
    pub source: SandboxId,
    /// The image that the machine came from.
    pub image: String,
    /// The image's digest.
    pub image_digest: String,
    /// Virtual CPUs of the machine.
    pub cpus: f64,
    /// Memory of the machine in MiB.
    pub memory_mb: u64,
    /// Bytes that it takes on the host's disk, what it shares with other snapshots included, its image not.
    pub size_bytes: u64,
    /// Bytes that it stands for: the machine's disk and, where it is held, its memory.
    pub logical_size_bytes: u64,
    /// Milliseconds for which the machine stood still.
    pub pause_ms: u64,
    /// The caller's marks.
    pub labels: BTreeMap<String, String>,
    /// Whether the project's retention policy leaves it alone.
    #[serde(default)]
    pub retain: bool,
    /// When it was asked for: milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A project's snapshots, newest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
}

/// The forks that one call made.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SandboxList {
    /// The machines.
    pub sandboxes: Vec<crate::Sandbox>,
}
