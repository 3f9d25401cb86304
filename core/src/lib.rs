//! Every agent task gets its own computer: the Rust SDK of Forkyard, and the core of its SDKs in other languages.
//!
//! A [`Client`] is one server and one pool of connections to it. It makes a [`Sandbox`], an isolated microVM that runs
//! [`Command`]s and keeps [`Files`] until it is terminated:
//!
//! ```
//! use forkyard::{Client, Command, CreateSandbox};
//!
//! # #[tokio::main]
//! # async fn main() -> forkyard::Result<()> {
//! let client = Client::builder().build()?;
//! let image = CreateSandbox { image: Some("base".to_owned()), ..CreateSandbox::default() };
//! let sandbox = client.create(image).await?;
//! let result = sandbox.run(Command::new("uname").args(["-s"])).await?;
//! assert_eq!((result.exit_code, result.stdout.as_slice()), (0, &b"Linux\n"[..]));
//! sandbox.terminate().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Set up once, [freeze](Sandbox::checkpoint) and [fork](Sandbox::fork) as often as a [swarm](Client::swarm) needs: each twin goes
//! on where the original stood, its memory and processes included.
//!
//! # Calls
//!
//! All calls run on the caller's tokio runtime. Each has a deadline ([`ClientBuilder::timeout`]) that bounds its retries too, and none
//! repeats an effect: what was cut off is taken up where it was. Dropping a future undoes what it began: a machine that
//! nobody has heard of is ended, a command of [`Sandbox::run`] is killed. What is left to do then goes on on a [runtime] of the
//! crate's own; [`runtime::settle`] waits for it.
//!
//! Every call fails with an [`Error`], whose [`ErrorCode`] says what it is and whether to try again.
//!
//! Decisions are made without I/O ([`RetryPolicy`], [`SwarmPlan`], the order of output), and the rest is thin.

mod client;
mod error;
mod events;
mod feed;
mod files;
mod folder;
mod http;
mod listing;
mod named;
mod network;
mod output;
mod pool;
mod ports;
mod process;
mod pty;
mod retry;
pub mod runtime;
mod sandbox;
mod snapshot;
mod swarm;
mod transfer;
mod tunnel;
mod watch;

pub use client::{
    Capacity, Client, ClientBuilder, CreateKey, CreateSandbox, CreatedKey, ImageInfo, KeyInfo, KeyScope,
    SandboxInfo, SandboxPage, SandboxStatus, ServerInfo, Stage,
};
pub use error::{Error, ErrorCode, Resource, Result};
pub use events::{EventStream, SandboxEvent, SandboxEventKind, SandboxEvents};
pub use feed::{Feed, SharedFeed};
pub use files::{FileKind, FileStat, Files};
pub use folder::TreeSummary;
pub use forkyard_protocol::InvalidId;
pub use listing::{SandboxFilter, SandboxListing};
pub use network::{
    NetworkCounters, NetworkEvent, NetworkEventKind, NetworkInfo, NetworkLink, NetworkPolicy,
    NetworkProtocol, NetworkVerdict,
};
pub use output::{OutputEvent, Progress};
pub use pool::{PoolId, PoolInfo, PoolSpec};
pub use ports::{Forward, ListeningPort, Ports, Preview};
pub use process::{ExitStatus, Handle, Process, ProcessState};
pub use pty::{Pty, PtyEvent, PtySize, PtySpec};
pub use retry::RetryPolicy;
pub use sandbox::{Command, CommandResult, HealthCheck, ProcessInfo, RestartPolicy, RestartWhen, Sandbox};
pub use snapshot::{
    CheckpointType, CreateSnapshot, ForkSandbox, RetentionPolicy, SnapshotId, SnapshotInfo, SnapshotStatus,
    WhenFull,
};
pub use swarm::{
    AfterFailure, AttemptReport, Swarm, SwarmOutcome, SwarmPlan, SwarmPolicy, SwarmProgress, SwarmReport,
    TaskReport, TaskStatus,
};
pub use transfer::OnProgress;
pub use tunnel::{SharedTunnel, Tunnel};
pub use watch::{FileEvent, FileEventKind, Watch};

/// The snippets of the how-to, run like those above.
#[cfg(doctest)]
#[doc = include_str!("../../docs/how-to/use-from-rust.md")]
struct HowTo;
