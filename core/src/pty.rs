//! Processes on a pseudo-terminal. A terminal is a process whose output any number of programs view at once and whose input
//! any of them types; it outlives their connections and is found again by its id.

use bytes::Bytes;
pub use forkyard_protocol::{PtySize, PtySpec};

use crate::error::{Error, ErrorCode, Result};
use crate::output::OutputEvent;
use crate::process::{ExitStatus, Handle, Process};
use crate::sandbox::{Command, ProcessInfo, Sandbox};

/// A terminal in a machine, and a place in what it shows. Dropping this value leaves it running for others to attach to.
pub struct Pty {
    process: Process,
}

/// What a terminal brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PtyEvent {
    /// Bytes as programs wrote them, escape sequences included.
    Output(Vec<u8>),
    /// So many bytes were lost, since this viewer, or the first, came too late for them.
    Dropped(u64),
    /// The process has ended; nothing follows.
    Exited(ExitStatus),
}

impl Sandbox {
    /// Starts a command on a terminal: [`Command::shell`] for the account's shell.
    pub async fn pty(&self, command: Command, terminal: PtySpec) -> Result<Pty> {
        self.start(command.terminal(terminal)).await.map(|process| Pty { process })
    }

    /// A terminal that is there already, by its id; what it showed comes first, from the oldest that is kept (a MiB). Whether it
    /// is there shows with the first call to it.
    pub fn attach_pty(&self, id: &str) -> Result<Pty> {
        self.process(id).map(|process| Pty { process })
    }
}

impl Pty {
    /// The id by which others attach to it.
    pub fn id(&self) -> &str {
        self.process.id().as_str()
    }

    /// To tell it things while somebody else reads.
    pub fn handle(&self) -> Handle {
        self.process.handle()
    }

    /// What comes next; `None` after the end. A cut is taken up where it was.
    pub async fn next(&mut self) -> Result<Option<PtyEvent>> {
        Ok(self.process.next().await?.map(|event| match event {
            // A terminal has one output.
            OutputEvent::Stdout(data) | OutputEvent::Stderr(data) => PtyEvent::Output(data),
            OutputEvent::Dropped { stdout, stderr } => PtyEvent::Dropped(stdout + stderr),
            OutputEvent::Exited(status) => PtyEvent::Exited(status),
        }))
    }

    /// Types these bytes. Repeated after a cut, no byte comes twice.
    pub async fn write(&self, data: impl Into<Bytes>) -> Result<()> {
        self.handle().write_stdin(data).await
    }

    /// Changes its size.
    pub async fn resize(&self, size: PtySize) -> Result<()> {
        self.handle().resize(size).await
    }

    /// Sends a signal to the process group in the foreground; 9 to everything that was started on it.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        self.handle().signal(signal).await
    }

    /// How it stands, its size with it.
    pub async fn info(&self) -> Result<ProcessInfo> {
        self.handle().info().await
    }

    /// Waits for its end, passing over what it shows until then.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        while let Some(event) = self.next().await? {
            if let PtyEvent::Exited(status) = event {
                return Ok(status);
            }
        }
        Err(Error::new(ErrorCode::FailedPrecondition, "its end was read already"))
    }
}
