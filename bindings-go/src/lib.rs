//! The native half of the Go module `forkyard`: the core's nouns as UniFFI exports them, and as Go wants them, zero values meaning
//! defaults.
//!
//! Doc comments of what is exported are Go's documentation: they are written as Go's are, beginning with the name. What Go's
//! own half wraps is listed in `uniffi.toml`.
#![allow(clippy::needless_pass_by_value)] // what crosses the border is owned
#![allow(clippy::doc_markdown)] // they are Go's, where backticks mean nothing

mod blob;
mod client;
mod error;
mod events;
mod files;
mod folders;
mod key;
mod listing;
mod managed;
mod network;
mod pool;
mod ports;
mod process;
mod pty;
mod sandbox;
mod server;
mod snapshot;
mod swarm;
mod value;

pub use blob::Blob;
pub use client::{Client, ClientOptions};
pub use error::{Code, Error};
pub use events::{
    EventsHandle, FileEvent, FileEventKind, SandboxEvent, SandboxEventKind, SandboxEvents, WatchHandle,
};
pub use files::{FileInfo, FileKind, Progress};
pub use folders::TreeSummary;
pub use key::{CreatedKey, KeyInfo, KeyOptions, KeyScope};
pub use listing::{ListFilter, ListPage, Listing};
pub use managed::{HealthCheck, RestartPolicy, RestartWhen};
pub use network::{
    NetworkCounters, NetworkEvent, NetworkEventKind, NetworkEvents, NetworkInfo, NetworkLink, NetworkPolicy,
    NetworkProtocol, NetworkVerdict,
};
pub use pool::{PoolInfo, PoolOptions};
pub use ports::{ForwardHandle, ListeningPort, TunnelHandle};
pub use process::{
    CommandSpec, ExitStatus, OutputPiece, OutputStream, Process, ProcessInfo, ProcessState, Result,
};
pub use pty::{PtyOptions, PtySize};
pub use sandbox::{Options, Sandbox, SandboxInfo, SandboxStatus, Stage};
pub use server::{Capacity, ImageInfo, ServerInfo};
pub use snapshot::{
    CheckpointOptions, CheckpointType, ForkOptions, RetentionPolicy, SnapshotInfo, SnapshotStatus, WhenFull,
};
pub use swarm::{PlanReport, PlanTask, SwarmAttempt, SwarmPlan, SwarmProgress, TaskStatus};

uniffi::setup_scaffolding!("forkyard");

/// What every call answers with.
type Answer<T> = std::result::Result<T, Error>;

/// Settle waits at most so long until what cancelled calls left behind is cleaned up: a process that was to be killed, a machine
/// that was to be ended. For programs that end: nobody is left to do it afterwards.
#[uniffi::export]
#[allow(clippy::unnecessary_wraps)] // a length of time that Go gives may be negative, and then the call must fail
fn settle(patience: std::time::Duration) -> Answer<()> {
    forkyard::runtime::settle(patience);
    Ok(())
}
