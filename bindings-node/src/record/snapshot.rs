use std::collections::BTreeMap;

use forkyard::{CreateSnapshot, Error, InvalidId, SnapshotId};
use napi_derive::napi;

use super::mirror;
use crate::value::{invalid, number, seconds, secs_as_millis, whole_or_none};

/// What of a machine a snapshot holds: its disk, from which a machine boots with any number of processors and any
/// memory; or its memory too, so that a machine goes on from the very instruction.
#[napi(string_enum = "snake_case")]
pub enum CheckpointType {
    Filesystem,
    Memory,
}

mirror!(CheckpointType = forkyard::CheckpointType { Filesystem, Memory });

/// Where a snapshot stands: being written; on disk, whole; or not made, of which `reason` says more.
#[napi(string_enum = "snake_case")]
pub enum SnapshotStatus {
    InProgress,
    Completed,
    Failed,
}

mirror!(SnapshotStatus = forkyard::SnapshotStatus { InProgress, Completed, Failed });

/// What becomes of a snapshot that the project's budget has no room for: it fails with `NoSpace`, or the oldest are
/// deleted until it fits.
#[napi(string_enum = "snake_case")]
pub enum WhenFull {
    Refuse,
    DeleteOldest,
}

mirror!(WhenFull = forkyard::WhenFull { Refuse, DeleteOldest });

/// A machine frozen on the server's disk. It never changes once it is completed.
#[napi(object, object_from_js = false)]
pub struct SnapshotInfo {
    /// Its id, `snap_…`.
    pub snapshot_id: String,
    /// What it holds.
    pub checkpoint_type: CheckpointType,
    /// Where it stands.
    pub status: SnapshotStatus,
    /// Why it failed, for people.
    pub reason: Option<String>,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The machine that it was taken of.
    pub source: String,
    /// The image that the machine came from.
    pub image: String,
    /// The image's digest.
    pub image_digest: String,
    /// Virtual CPUs of the machine.
    pub cpu: f64,
    /// Memory of the machine in MiB.
    pub memory_mb: f64,
    /// Bytes that it takes on the host's disk, its image not counted.
    pub size: f64,
    /// Bytes of the machine's disk and, where it is held, of its memory.
    pub logical_size: f64,
    /// Milliseconds for which the machine stood still.
    pub pause_ms: f64,
    /// The caller's own marks.
    pub labels: BTreeMap<String, String>,
    /// Whether the project's retention policy leaves it alone.
    pub retain: bool,
    /// When it was asked for: milliseconds since 1970.
    pub created_at_ms: f64,
}

impl From<forkyard::SnapshotInfo> for SnapshotInfo {
    fn from(info: forkyard::SnapshotInfo) -> Self {
        let forkyard::SnapshotInfo {
            snapshot_id,
            checkpoint_type,
            status,
            reason,
            name,
            source,
            image,
            image_digest,
            cpus,
            memory_mb,
            size_bytes,
            logical_size_bytes,
            pause_ms,
            labels,
            retain,
            created_at_ms,
        } = info;
        Self {
            snapshot_id: snapshot_id.into(),
            checkpoint_type: checkpoint_type.into(),
            status: status.into(),
            reason,
            name,
            source: source.into(),
            image,
            image_digest,
            cpu: cpus,
            memory_mb: number(memory_mb),
            size: number(size_bytes),
            logical_size: number(logical_size_bytes),
            pause_ms: number(pause_ms),
            labels,
            retain,
            created_at_ms: number(created_at_ms),
        }
    }
}

/// What a snapshot is to be.
#[napi(object, object_to_js = false)]
pub struct CheckpointRequest {
    /// The disk alone, or the memory too. Default: `filesystem`.
    #[napi(js_name = "type")]
    pub kind: Option<CheckpointType>,
    /// A name for people.
    pub name: Option<String>,
    /// The caller's own marks, at most 64.
    pub labels: Option<BTreeMap<String, String>>,
    /// Whether the project's retention policy leaves it alone. Default: false.
    pub retain: Option<bool>,
}

impl From<CheckpointRequest> for CreateSnapshot {
    fn from(request: CheckpointRequest) -> Self {
        let CheckpointRequest { kind, name, labels, retain } = request;
        Self {
            checkpoint_type: kind.map(Into::into).unwrap_or_default(),
            name,
            labels: labels.unwrap_or_default(),
            retain: retain.unwrap_or_default(),
        }
    }
}

/// Which of its snapshots a project keeps.
#[napi(object)]
pub struct RetentionPolicy {
    /// MiB on disk that the snapshots may take in all. Default: as much as the host has.
    pub budget_mb: Option<f64>,
    /// What becomes of a snapshot that the budget has no room for. Default: `refuse`.
    pub when_full: Option<WhenFull>,
    /// How many are kept; the oldest beyond it are deleted. Default: all.
    pub keep_last: Option<f64>,
    /// Milliseconds after which one is deleted, rounded up to whole seconds. Default: never.
    pub max_age_ms: Option<f64>,
}

impl From<forkyard::RetentionPolicy> for RetentionPolicy {
    fn from(policy: forkyard::RetentionPolicy) -> Self {
        let forkyard::RetentionPolicy { budget_mb, when_full, keep_last, max_age_secs } = policy;
        Self {
            budget_mb: budget_mb.map(number),
            when_full: Some(when_full.into()),
            keep_last: keep_last.map(f64::from),
            max_age_ms: max_age_secs.map(secs_as_millis),
        }
    }
}

impl TryFrom<RetentionPolicy> for forkyard::RetentionPolicy {
    type Error = Error;

    fn try_from(policy: RetentionPolicy) -> Result<Self, Error> {
        let RetentionPolicy { budget_mb, when_full, keep_last, max_age_ms } = policy;
        Ok(Self {
            budget_mb: whole_or_none("budgetMb", budget_mb)?,
            when_full: when_full.map(Into::into).unwrap_or_default(),
            keep_last: whole_or_none("keepLast", keep_last)?,
            max_age_secs: max_age_ms.map(|value| seconds("maxAgeMs", value)).transpose()?,
        })
    }
}

/// A snapshot's id from JavaScript.
pub fn snapshot_id(text: String) -> Result<SnapshotId, Error> {
    text.try_into().map_err(|error: InvalidId| invalid(error.to_string()))
}
