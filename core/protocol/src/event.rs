//! What happened to a machine, from its making to its end.

use serde::{Deserialize, Serialize};

use crate::{NetworkEvent, SandboxId, SnapshotId};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SandboxEventKind {
    /// It was given room. `snapshot_id` and `forked_from` say what it is made of, where that is no image.
    Created,
    /// It runs for the first time.
    Started,
    /// It was put on disk.
    Suspended,
    /// It goes on from there.
    Resumed,
    /// It was frozen into `snapshot_id`, and ran on.
    Checkpointed,
    /// Twins of it were started: `forks`.
    Forked,
    /// It was put back to where `snapshot_id` stands.
    Restored,
    /// Something happened on its network: `network`.
    Network,
    /// More happened before the next event than was kept.
    Overflow,
    /// It was ended on purpose. The last event, as are the three below.
    Terminated,
    /// It was ended since nobody had called it for its idle time-out.
    TimedOut,
    /// It did not come up.
    Failed,
    /// It had run, and ended by a fault.
    Lost,
}

impl SandboxEventKind {
    /// Whether nothing can come after it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Terminated | Self::TimedOut | Self::Failed | Self::Lost)
    }
}

/// One thing that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SandboxEvent {
    /// When: milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub kind: SandboxEventKind,
    /// Why, for people: of each end, and of a suspension that nobody asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The snapshot that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// Whose twin it was made as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<SandboxId>,
    /// The twins that were made of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<SandboxId>,
    /// What happened on its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkEvent>,
}

impl SandboxEvent {
    /// An event about which there is nothing more to say.
    pub fn new(at_ms: u64, kind: SandboxEventKind) -> Self {
        Self {
            at_ms,
            kind,
            reason: None,
            snapshot_id: None,
            forked_from: None,
            forks: Vec::new(),
            network: None,
        }
    }
}

/// A machine's events, oldest first: the newest 200 of its life, which outlive the server, and the newest 1,000 of its network,
/// which do not. They go with the machine's record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SandboxEventList {
    /// The events.
    pub events: Vec<SandboxEvent>,
    /// Given back as `cursor`, it yields what came after these; absent where there never was an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Whether the machine has ended, so that nothing comes after these.
    #[serde(default)]
    pub ended: bool,
}
