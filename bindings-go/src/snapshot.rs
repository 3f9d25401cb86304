use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forkyard::runtime::{run, run_or_undo};
use forkyard::{CreateSnapshot, ForkSandbox};

use crate::{Answer, Client, Error, NetworkPolicy, Sandbox, SandboxInfo, value};

/// CheckpointType is what of a machine a snapshot holds.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum CheckpointType {
    /// Its disk: a machine of it boots, with any number of processors and any memory.
    Filesystem,
    /// Its disk and its memory: a machine of it goes on from the very instruction, with the processors and memory it had.
    Memory,
}

impl From<CheckpointType> for forkyard::CheckpointType {
    fn from(kind: CheckpointType) -> Self {
        match kind {
            CheckpointType::Filesystem => Self::Filesystem,
            CheckpointType::Memory => Self::Memory,
        }
    }
}

impl From<forkyard::CheckpointType> for CheckpointType {
    fn from(kind: forkyard::CheckpointType) -> Self {
        match kind {
            forkyard::CheckpointType::Filesystem => Self::Filesystem,
            forkyard::CheckpointType::Memory => Self::Memory,
        }
    }
}

/// CheckpointOptions says what snapshot to make. Zero values stand for defaults.
#[derive(Debug, uniffi::Record)]
pub struct CheckpointOptions {
    /// Type is what it holds. Default: [CheckpointTypeFilesystem].
    pub r#type: CheckpointType,
    /// Name is a name for people; need not be unique.
    pub name: String,
    /// Labels are the caller's own marks, at most 64.
    pub labels: HashMap<String, String>,
    /// Retain has the project's retention policy leave it alone.
    pub retain: bool,
}

impl From<CheckpointOptions> for CreateSnapshot {
    fn from(options: CheckpointOptions) -> Self {
        let CheckpointOptions { r#type, name, labels, retain } = options;
        let labels = labels.into_iter().collect();
        Self { checkpoint_type: r#type.into(), name: value::text(name), labels, retain }
    }
}

/// ForkOptions says what twins of a machine to start. Zero values stand for defaults.
#[derive(Debug, uniffi::Record)]
pub struct ForkOptions {
    /// Count is how many, 1 to 1,000. Default: 1.
    pub count: i32,
    /// Env is added to the machine's environment, for processes that start in the twins.
    pub env: HashMap<String, String>,
    /// Labels are the twins' marks. Default, where nil: the machine's.
    pub labels: Option<HashMap<String, String>>,
    /// Timeout is the twins' idle time-out in whole seconds. Default: the machine's.
    pub timeout: Duration,
    /// Network is what the twins may reach. Default, where nil: what the machine may.
    pub network: Option<NetworkPolicy>,
}

impl TryFrom<ForkOptions> for ForkSandbox {
    type Error = Error;

    fn try_from(options: ForkOptions) -> Answer<Self> {
        let ForkOptions { count, env, labels, timeout, network } = options;
        Ok(Self {
            count: value::count("Count", count)?.unwrap_or(Self::default().count),
            env: env.into_iter().collect(),
            labels: labels.map(|labels| labels.into_iter().collect()),
            timeout_secs: value::seconds(timeout),
            network: network.map(TryInto::try_into).transpose()?,
        })
    }
}

/// SnapshotStatus is where a snapshot stands.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum SnapshotStatus {
    /// It is being written.
    InProgress,
    /// It is on disk, whole.
    Completed,
    /// It could not be made; Reason says why.
    Failed,
}

impl From<forkyard::SnapshotStatus> for SnapshotStatus {
    fn from(status: forkyard::SnapshotStatus) -> Self {
        match status {
            forkyard::SnapshotStatus::InProgress => Self::InProgress,
            forkyard::SnapshotStatus::Completed => Self::Completed,
            forkyard::SnapshotStatus::Failed => Self::Failed,
        }
    }
}

/// SnapshotInfo is a machine frozen on the server's disk. It never changes once it is completed.
#[derive(Debug, uniffi::Record)]
pub struct SnapshotInfo {
    /// SnapshotID is its id, snap_….
    pub snapshot_id: String,
    /// Type is what it holds.
    pub r#type: CheckpointType,
    /// Status is where it stands.
    pub status: SnapshotStatus,
    /// Reason says why it failed, for people.
    pub reason: String,
    /// Name is its name, if it has one.
    pub name: String,
    /// Source is the machine that it was taken of.
    pub source: String,
    /// Image is the image that the machine came from.
    pub image: String,
    /// ImageDigest is the image's digest.
    pub image_digest: String,
    /// CPUs are virtual CPUs of the machine.
    pub cpus: f64,
    /// MemoryMB is the memory of the machine in MiB.
    pub memory_mb: i32,
    /// Size is how many bytes it takes on the host's disk, its image not counted.
    pub size: i64,
    /// LogicalSize is how many bytes the machine's disk and, where it is held, its memory have.
    pub logical_size: i64,
    /// Pause is how long the machine stood still.
    pub pause: Duration,
    /// Labels are the caller's own marks.
    pub labels: HashMap<String, String>,
    /// Retain says that the project's retention policy leaves it alone.
    pub retain: bool,
    /// CreatedAt is when it was asked for.
    pub created_at: SystemTime,
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
            snapshot_id: snapshot_id.to_string(),
            r#type: checkpoint_type.into(),
            status: status.into(),
            reason: reason.unwrap_or_default(),
            name: name.unwrap_or_default(),
            source: source.to_string(),
            image,
            image_digest,
            cpus,
            memory_mb: value::size(memory_mb),
            size: value::bytes(size_bytes),
            logical_size: value::bytes(logical_size_bytes),
            pause: Duration::from_millis(pause_ms),
            labels: labels.into_iter().collect(),
            retain,
            created_at: value::time(created_at_ms),
        }
    }
}

/// WhenFull is what becomes of a snapshot that the project's budget has no room for.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum WhenFull {
    /// It fails with [CodeNoSpace].
    Refuse,
    /// The oldest are deleted until it fits.
    DeleteOldest,
}

impl From<WhenFull> for forkyard::WhenFull {
    fn from(when: WhenFull) -> Self {
        match when {
            WhenFull::Refuse => Self::Refuse,
            WhenFull::DeleteOldest => Self::DeleteOldest,
        }
    }
}

impl From<forkyard::WhenFull> for WhenFull {
    fn from(when: forkyard::WhenFull) -> Self {
        match when {
            forkyard::WhenFull::Refuse => Self::Refuse,
            forkyard::WhenFull::DeleteOldest => Self::DeleteOldest,
        }
    }
}

/// RetentionPolicy says which of its snapshots a project keeps. The zero value keeps all.
#[derive(Debug, uniffi::Record)]
pub struct RetentionPolicy {
    /// BudgetMB is how many MiB on disk the snapshots may take in all. Default: as much as the host has.
    pub budget_mb: i32,
    /// WhenFull is what becomes of a snapshot that the budget has no room for. Default: [WhenFullRefuse].
    pub when_full: WhenFull,
    /// KeepLast is how many are kept; the oldest beyond it are deleted. Default: all.
    pub keep_last: i32,
    /// MaxAge is the age, in whole seconds, at which one is deleted. Default: never.
    pub max_age: Duration,
}

impl TryFrom<RetentionPolicy> for forkyard::RetentionPolicy {
    type Error = Error;

    fn try_from(policy: RetentionPolicy) -> Answer<Self> {
        let RetentionPolicy { budget_mb, when_full, keep_last, max_age } = policy;
        Ok(Self {
            budget_mb: value::count("BudgetMB", budget_mb)?,
            when_full: when_full.into(),
            keep_last: value::count("KeepLast", keep_last)?,
            max_age_secs: value::seconds(max_age),
        })
    }
}

impl From<forkyard::RetentionPolicy> for RetentionPolicy {
    fn from(policy: forkyard::RetentionPolicy) -> Self {
        let forkyard::RetentionPolicy { budget_mb, when_full, keep_last, max_age_secs } = policy;
        Self {
            budget_mb: value::size(budget_mb.unwrap_or_default()),
            when_full: when_full.into(),
            keep_last: value::size(keep_last.unwrap_or_default().into()),
            max_age: Duration::from_secs(max_age_secs.unwrap_or_default()),
        }
    }
}

/// Ends forks that nobody heard of, as many as can be.
async fn end_all(forks: Vec<forkyard::Sandbox>) -> forkyard::Result<()> {
    let mut outcome = Ok(());
    for fork in forks {
        outcome = fork.terminate().await.map(drop).and(outcome);
    }
    outcome
}

#[uniffi::export]
impl Sandbox {
    /// Checkpoint freezes the machine, which goes on running, and waits until the snapshot is on disk. Machines are made of it by
    /// Create with its id, any number of them. It is not tried again after a failed connection: a second snapshot would come of it.
    pub async fn checkpoint(&self, options: CheckpointOptions) -> Answer<SnapshotInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.checkpoint(options.into()).await }).await?.into())
    }

    /// Fork starts twins of the machine, each with its memory, its processes and its disk, and waits until they run. If the
    /// context is cancelled, they are ended again.
    pub async fn fork(&self, options: ForkOptions) -> Answer<Vec<Arc<Self>>> {
        let (sandbox, request) = (self.sandbox.clone(), options.try_into()?);
        let forking = async move { sandbox.fork(request).await };
        let forks = run_or_undo(forking, end_all).await?;
        Ok(forks.into_iter().map(Self::new).collect())
    }

    /// Suspend puts the machine on disk: it holds no memory and no processor until it is resumed, by Resume or, unless it was made
    /// otherwise, by the next call to it from any program.
    pub async fn suspend(&self) -> Answer<SandboxInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.suspend().await }).await?.into())
    }

    /// Resume lets a suspended machine go on where it stood; where the host has no room, it waits for that for two minutes.
    pub async fn resume(&self) -> Answer<SandboxInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.resume().await }).await?.into())
    }

    /// Restore puts the machine back to where a snapshot stands, under its own id and name; what it did since is gone.
    pub async fn restore(&self, snapshot_id: String) -> Answer<SandboxInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.restore(&snapshot_id).await }).await?.into())
    }
}

#[uniffi::export]
impl Client {
    /// Snapshot answers a snapshot's record.
    pub async fn snapshot(&self, snapshot_id: String) -> Answer<SnapshotInfo> {
        let client = self.client.clone();
        Ok(run(async move { client.snapshot(&snapshot_id).await }).await?.into())
    }

    /// Snapshots answers all snapshots of the project, newest first.
    pub async fn snapshots(&self) -> Answer<Vec<SnapshotInfo>> {
        let client = self.client.clone();
        Ok(run(async move { client.snapshots().await }).await?.into_iter().map(Into::into).collect())
    }

    /// DeleteSnapshot deletes a snapshot; machines that came from it go on.
    pub async fn delete_snapshot(&self, snapshot_id: String) -> Answer<()> {
        let client = self.client.clone();
        run(async move { client.delete_snapshot(&snapshot_id).await }).await.map_err(Error::from)
    }

    /// Retention answers which of its snapshots the project keeps.
    pub async fn retention(&self) -> Answer<RetentionPolicy> {
        let client = self.client.clone();
        Ok(run(async move { client.retention().await }).await?.into())
    }

    /// SetRetention has the project keep others of its snapshots; what it no longer keeps is deleted at once. Snapshots made with
    /// Retain are never deleted by it; they count in the budget.
    pub async fn set_retention(&self, policy: RetentionPolicy) -> Answer<RetentionPolicy> {
        let (client, policy) = (self.client.clone(), policy.try_into()?);
        Ok(run(async move { client.set_retention(&policy).await }).await?.into())
    }
}
