use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forkyard::SharedFeed;
use forkyard::runtime::{handle, run};

use crate::{Answer, Blob, NetworkEvent, Sandbox, value};

/// FileEventKind is what happened to a file or folder.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum FileEventKind {
    /// It is there now: made, or moved in from elsewhere.
    Created,
    /// Its contents changed.
    Modified,
    /// Its permissions, owner or times changed.
    Attributes,
    /// It has another name now.
    Moved,
    /// It is gone: deleted, or moved out.
    Removed,
    /// More happened than was kept, or than can be watched: whoever needs to know looks again.
    Overflow,
}

impl From<forkyard::FileEventKind> for FileEventKind {
    fn from(kind: forkyard::FileEventKind) -> Self {
        match kind {
            forkyard::FileEventKind::Created => Self::Created,
            forkyard::FileEventKind::Modified => Self::Modified,
            forkyard::FileEventKind::Attributes => Self::Attributes,
            forkyard::FileEventKind::Moved => Self::Moved,
            forkyard::FileEventKind::Removed => Self::Removed,
            forkyard::FileEventKind::Overflow => Self::Overflow,
        }
    }
}

/// FileEvent is one thing that happened below a watched folder.
#[derive(Debug, uniffi::Record)]
pub struct FileEvent {
    /// Kind is what happened.
    pub kind: FileEventKind,
    /// Path is to what: an absolute path, with U+FFFD in place of what is not UTF-8.
    pub path: String,
    /// From is the path before, of what was moved.
    pub from: String,
    /// IsDir says whether it is a folder.
    pub is_dir: bool,
}

impl From<forkyard::FileEvent> for FileEvent {
    fn from(event: forkyard::FileEvent) -> Self {
        let forkyard::FileEvent { kind, path, from, is_dir } = event;
        Self { kind: kind.into(), path, from: from.unwrap_or_default(), is_dir }
    }
}

/// SandboxEventKind is what happened to a machine.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum SandboxEventKind {
    /// It was given room.
    Created,
    /// It runs for the first time.
    Started,
    /// It was put on disk.
    Suspended,
    /// It goes on from there.
    Resumed,
    /// It was frozen into a snapshot, and ran on.
    Checkpointed,
    /// Twins of it were started.
    Forked,
    /// It was put back to where a snapshot stands.
    Restored,
    /// Something happened on its network.
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

impl From<forkyard::SandboxEventKind> for SandboxEventKind {
    fn from(kind: forkyard::SandboxEventKind) -> Self {
        match kind {
            forkyard::SandboxEventKind::Created => Self::Created,
            forkyard::SandboxEventKind::Started => Self::Started,
            forkyard::SandboxEventKind::Suspended => Self::Suspended,
            forkyard::SandboxEventKind::Resumed => Self::Resumed,
            forkyard::SandboxEventKind::Checkpointed => Self::Checkpointed,
            forkyard::SandboxEventKind::Forked => Self::Forked,
            forkyard::SandboxEventKind::Restored => Self::Restored,
            forkyard::SandboxEventKind::Network => Self::Network,
            forkyard::SandboxEventKind::Overflow => Self::Overflow,
            forkyard::SandboxEventKind::Terminated => Self::Terminated,
            forkyard::SandboxEventKind::TimedOut => Self::TimedOut,
            forkyard::SandboxEventKind::Failed => Self::Failed,
            forkyard::SandboxEventKind::Lost => Self::Lost,
        }
    }
}

/// SandboxEvent is one thing that happened to a machine.
#[derive(Debug, uniffi::Record)]
pub struct SandboxEvent {
    /// At is when.
    pub at: SystemTime,
    /// Kind is what.
    pub kind: SandboxEventKind,
    /// Reason is why, for people: of each end, and of a suspension that nobody asked for.
    pub reason: String,
    /// SnapshotID is the snapshot that it is about; of SandboxEventKindCreated, the one that the machine was made of.
    pub snapshot_id: String,
    /// ForkedFrom is, of SandboxEventKindCreated, whose twin it was made as.
    pub forked_from: String,
    /// Forks are, of SandboxEventKindForked, the twins.
    pub forks: Vec<String>,
    /// Network is, of SandboxEventKindNetwork, what happened there.
    pub network: Option<NetworkEvent>,
}

impl From<forkyard::SandboxEvent> for SandboxEvent {
    fn from(event: forkyard::SandboxEvent) -> Self {
        let forkyard::SandboxEvent { at_ms, kind, reason, snapshot_id, forked_from, forks, network } = event;
        Self {
            at: value::time(at_ms),
            kind: kind.into(),
            reason: reason.unwrap_or_default(),
            snapshot_id: snapshot_id.map(|id| id.to_string()).unwrap_or_default(),
            forked_from: forked_from.map(|id| id.to_string()).unwrap_or_default(),
            forks: forks.into_iter().map(|id| id.to_string()).collect(),
            network: network.map(Into::into),
        }
    }
}

/// SandboxEvents are some of a machine's events, oldest first.
#[derive(Debug, uniffi::Record)]
pub struct SandboxEvents {
    /// Events are the events.
    pub events: Vec<SandboxEvent>,
    /// Cursor, given to the next call, has it answer what came after these.
    pub cursor: String,
    /// Ended says whether the machine has ended, so that nothing comes after these.
    pub ended: bool,
}

/// Events of a watched folder.
#[derive(uniffi::Object)]
pub struct WatchHandle {
    feed: SharedFeed<forkyard::Watch>,
}

/// A machine's events.
#[derive(uniffi::Object)]
pub struct EventsHandle {
    feed: SharedFeed<forkyard::EventStream>,
}

#[uniffi::export]
impl Sandbox {
    /// Watches a folder.
    pub async fn watch_native(&self, path: Blob, recursive: bool) -> Answer<Arc<WatchHandle>> {
        let sandbox = self.sandbox.clone();
        let watch = run(async move { sandbox.files().watch(path.0, recursive).await }).await?;
        Ok(Arc::new(WatchHandle { feed: SharedFeed::new(watch) }))
    }

    /// Events answers what happened to the machine from its making to its end, oldest first: all that is kept or, where a cursor is
    /// given, what came after it. Where there is nothing yet, it waits so long for the next, at most a minute and half of the
    /// client's time-out. The newest 200 events of its life are kept, also when the server is started anew, and the newest 1,000
    /// of its network, in the server's memory. It fails with [CodeInvalidArgument] where the cursor is none.
    pub async fn events(&self, cursor: String, wait: Duration) -> Answer<SandboxEvents> {
        let (sandbox, cursor) = (self.sandbox.clone(), value::text(cursor));
        let forkyard::SandboxEvents { events, cursor, ended } =
            run(async move { sandbox.events(cursor.as_deref(), wait).await }).await?;
        Ok(SandboxEvents {
            events: events.into_iter().map(Into::into).collect(),
            cursor: cursor.unwrap_or_default(),
            ended,
        })
    }

    /// Follows the machine's events.
    #[allow(clippy::unnecessary_wraps)] // on an object that Go has closed the call must fail
    pub fn follow_native(&self, cursor: String) -> Answer<Arc<EventsHandle>> {
        let events = self.sandbox.follow_events(value::text(cursor));
        Ok(Arc::new(EventsHandle { feed: SharedFeed::new(events) }))
    }
}

#[uniffi::export]
impl WatchHandle {
    /// The next event; none after the last, or once it was shut.
    pub async fn next(&self) -> Answer<Option<FileEvent>> {
        loop {
            // A call that is cancelled as it ends loses what it answers: what has come is taken after it.
            let feed = self.feed.clone();
            let has_more = run(async move { feed.has_more().await }).await?;
            let event = self.feed.take();
            if event.is_some() || !has_more {
                return Ok(event.map(Into::into));
            }
        }
    }

    /// Ends it, and what is under way on it.
    pub fn shut(&self) {
        let feed = self.feed.clone();
        handle().spawn(async move { feed.close().await });
    }
}

#[uniffi::export]
impl EventsHandle {
    /// The next event; none after the last, or once it was shut.
    pub async fn next(&self) -> Answer<Option<SandboxEvent>> {
        loop {
            // As above.
            let feed = self.feed.clone();
            let has_more = run(async move { feed.has_more().await }).await?;
            let event = self.feed.take();
            if event.is_some() || !has_more {
                return Ok(event.map(Into::into));
            }
        }
    }

    /// Ends it, and what is under way on it.
    pub fn shut(&self) {
        let feed = self.feed.clone();
        handle().spawn(async move { feed.close().await });
    }
}
