//! Every agent task gets its own computer: the Rust SDK of Forkyard, and the core of its SDKs in other languages.
//!
//! Decisions are made without I/O (`retry`, `output`, `swarm::plan`), and the rest is thin.

mod client;
mod error;
mod files;
mod http;
mod network;
mod output;
mod pool;
mod process;
mod retry;
pub mod runtime;
mod sandbox;
mod snapshot;
mod swarm;
mod transfer;

pub use client::{
    Capacity, Client, ClientBuilder, CreateKey, CreateSandbox, CreatedKey, ImageInfo, KeyInfo, KeyScope,
    SandboxInfo, SandboxPage, SandboxStatus, ServerInfo, Stage,
};
pub use error::{Error, ErrorCode, Resource, Result};
pub use files::{FileKind, FileStat, Files};
pub use forkyard_protocol::InvalidId;
pub use network::{
    NetworkCounters, NetworkEvent, NetworkEventKind, NetworkInfo, NetworkLink, NetworkPolicy,
    NetworkProtocol, NetworkVerdict,
};
pub use output::{OutputEvent, Progress};
pub use pool::{PoolId, PoolInfo, PoolSpec};
pub use process::{ExitStatus, Handle, Process, ProcessState};
pub use retry::RetryPolicy;
pub use sandbox::{Command, CommandResult, ProcessInfo, Sandbox};
pub use snapshot::{
    CheckpointType, CreateSnapshot, ForkSandbox, RetentionPolicy, SnapshotId, SnapshotInfo, SnapshotStatus,
    WhenFull,
};
pub use swarm::{
    AfterFailure, AttemptReport, Swarm, SwarmOutcome, SwarmPlan, SwarmPolicy, SwarmProgress, SwarmReport,
    TaskReport, TaskStatus,
};
pub use transfer::OnProgress;
