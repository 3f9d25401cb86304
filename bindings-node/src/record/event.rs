use napi_derive::napi;

use super::mirror;
use super::network::NetworkEvent;
use crate::value::number;

/// What happened to a machine: it was given room (`created`), runs for the first time (`started`), was put on disk and goes on
/// from there, was frozen into a snapshot and ran on (`checkpointed`), had twins started (`forked`), was put back to where a
/// snapshot stands (`restored`); something happened on its network; more happened before the next event than was kept
/// (`overflow`). The last of all is one of these: it was ended on purpose (`terminated`), or since nobody had called it for its
/// idle time-out (`timed_out`); it did not come up (`failed`), or had run and ended by a fault (`lost`).
#[napi(string_enum = "snake_case")]
pub enum SandboxEventKind {
    Created,
    Started,
    Suspended,
    Resumed,
    Checkpointed,
    Forked,
    Restored,
    Network,
    Overflow,
    Terminated,
    TimedOut,
    Failed,
    Lost,
}

mirror!(
    SandboxEventKind = forkyard::SandboxEventKind {
        Created,
        Started,
        Suspended,
        Resumed,
        Checkpointed,
        Forked,
        Restored,
        Network,
        Overflow,
        Terminated,
        TimedOut,
        Failed,
        Lost
    }
);

/// One thing that happened to a machine.
#[napi(object, object_from_js = false)]
pub struct SandboxEvent {
    /// When: milliseconds since 1970.
    pub at_ms: f64,
    /// What.
    pub kind: SandboxEventKind,
    /// Why, for people: of each end, and of a suspension that nobody asked for.
    pub reason: Option<String>,
    /// The snapshot that it is about; of `created`, the one that the machine was made of.
    pub snapshot_id: Option<String>,
    /// Of `created`, whose twin it was made as.
    pub forked_from: Option<String>,
    /// Of `forked`, the twins.
    pub forks: Vec<String>,
    /// Of `network`, what happened there.
    pub network: Option<NetworkEvent>,
}

impl From<forkyard::SandboxEvent> for SandboxEvent {
    fn from(event: forkyard::SandboxEvent) -> Self {
        let forkyard::SandboxEvent { at_ms, kind, reason, snapshot_id, forked_from, forks, network } = event;
        Self {
            at_ms: number(at_ms),
            kind: kind.into(),
            reason,
            snapshot_id: snapshot_id.map(|id| id.to_string()),
            forked_from: forked_from.map(|id| id.to_string()),
            forks: forks.into_iter().map(|id| id.to_string()).collect(),
            network: network.map(Into::into),
        }
    }
}

/// Some of a machine's events, oldest first.
#[napi(object, object_from_js = false)]
pub struct SandboxEvents {
    /// The events.
    pub events: Vec<SandboxEvent>,
    /// Given to the next call, it yields what came after these.
    pub cursor: Option<String>,
    /// Whether the machine has ended, so that nothing comes after these.
    pub ended: bool,
}

impl From<forkyard::SandboxEvents> for SandboxEvents {
    fn from(events: forkyard::SandboxEvents) -> Self {
        let forkyard::SandboxEvents { events, cursor, ended } = events;
        Self { events: events.into_iter().map(Into::into).collect(), cursor, ended }
    }
}
