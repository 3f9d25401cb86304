use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forkyard::CreateSandbox;
use forkyard::runtime::run;

use crate::{Answer, Error, NetworkPolicy, value};

/// Sandbox is a machine of one's own: an isolated microVM that runs commands and keeps files until it is terminated. It is safe
/// for use by many goroutines.
#[derive(uniffi::Object)]
pub struct Sandbox {
    pub(crate) sandbox: forkyard::Sandbox,
}

/// Options says what machine to make. Zero values stand for defaults.
#[derive(Debug, uniffi::Record)]
pub struct Options {
    /// Image is an image's tag or digest. Default: python. Not together with SnapshotID.
    pub image: String,
    /// SnapshotID is a snapshot to go on from instead of an image.
    pub snapshot_id: String,
    /// Name is a name, unique in the project. A machine with a name is suspended at its idle time-out.
    pub name: String,
    /// CPUs are virtual CPUs, at most 64; part of one is a whole one. Default: 1, or the snapshot's.
    pub cpus: f64,
    /// MemoryMB is the memory in MiB, 128 to 524,288. Default: 512, or the snapshot's.
    pub memory_mb: i32,
    /// Timeout is the time without any call after which the machine is terminated or, if it has a name, suspended: whole
    /// seconds, at most 30 days. Default: ten minutes.
    pub timeout: Duration,
    /// ManualResume leaves a suspended machine asleep until Resume; otherwise any call to it resumes it.
    pub manual_resume: bool,
    /// QueueTimeout is how long to wait for room in line with others, at most an hour, where the host has none or the key may
    /// have no more machines; the keys' lines are served in turn. Default: not at all.
    pub queue_timeout: Duration,
    /// Env is the environment of every process in the machine.
    pub env: HashMap<String, String>,
    /// Labels are the caller's own marks, at most 64.
    pub labels: HashMap<String, String>,
    /// Network is what it may reach. Default: nothing.
    pub network: NetworkPolicy,
}

impl TryFrom<Options> for CreateSandbox {
    type Error = Error;

    fn try_from(options: Options) -> Answer<Self> {
        let Options {
            image,
            snapshot_id,
            name,
            cpus,
            memory_mb,
            timeout,
            manual_resume,
            queue_timeout,
            env,
            labels,
            network,
        } = options;
        let defaults = Self::default();
        Ok(Self {
            image: value::text(image),
            snapshot_id: value::id(&snapshot_id)?,
            name: value::text(name),
            cpus: value::cpus(cpus),
            memory_mb: value::count("MemoryMB", memory_mb)?,
            timeout_secs: value::seconds(timeout).unwrap_or(defaults.timeout_secs),
            auto_resume: !manual_resume,
            queue_timeout_secs: value::seconds(queue_timeout).unwrap_or(defaults.queue_timeout_secs),
            env: env.into_iter().collect(),
            labels: labels.into_iter().collect(),
            network: network.try_into()?,
        })
    }
}

/// SandboxStatus is where a machine stands.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum SandboxStatus {
    /// Being made.
    Pending,
    /// Its agent answers.
    Running,
    /// Being put on disk.
    Suspending,
    /// On disk: it goes on where it stood when it is resumed.
    Suspended,
    /// Coming back from disk.
    Resuming,
    /// Ended on purpose: by a call, its time-out or the server's end.
    Terminated,
    /// Ended by a fault; Reason says which.
    Failed,
}

impl From<forkyard::SandboxStatus> for SandboxStatus {
    fn from(status: forkyard::SandboxStatus) -> Self {
        match status {
            forkyard::SandboxStatus::Pending => Self::Pending,
            forkyard::SandboxStatus::Running => Self::Running,
            forkyard::SandboxStatus::Suspending => Self::Suspending,
            forkyard::SandboxStatus::Suspended => Self::Suspended,
            forkyard::SandboxStatus::Resuming => Self::Resuming,
            forkyard::SandboxStatus::Terminated => Self::Terminated,
            forkyard::SandboxStatus::Failed => Self::Failed,
        }
    }
}

/// Stage is how far a machine that is being made has come.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum Stage {
    /// It is not being made: it is there, or has ended.
    Made,
    /// It has room and is about to be made.
    Accepted,
    /// Another machine is being made of the same image, which this one will be a fork of.
    WaitingForTemplate,
    /// Others start, as many as the host has processors.
    WaitingForTurn,
    /// Its image boots: the first machine of its kind.
    Booting,
    /// It goes on from where a snapshot, or the template of its image, was frozen.
    Restoring,
    /// Its image's programs run once, so that they are quick in all machines that are forked from it.
    Warming,
    /// It is frozen, so that others of its kind need not boot.
    Freezing,
}

impl From<Option<forkyard::Stage>> for Stage {
    fn from(stage: Option<forkyard::Stage>) -> Self {
        match stage {
            None => Self::Made,
            Some(forkyard::Stage::Accepted) => Self::Accepted,
            Some(forkyard::Stage::WaitingForTemplate) => Self::WaitingForTemplate,
            Some(forkyard::Stage::WaitingForTurn) => Self::WaitingForTurn,
            Some(forkyard::Stage::Booting) => Self::Booting,
            Some(forkyard::Stage::Restoring) => Self::Restoring,
            Some(forkyard::Stage::Warming) => Self::Warming,
            Some(forkyard::Stage::Freezing) => Self::Freezing,
        }
    }
}

/// SandboxInfo is a machine's record.
#[derive(Debug, uniffi::Record)]
pub struct SandboxInfo {
    /// SandboxID is its id, sbx_….
    pub sandbox_id: String,
    /// Status is where it stands.
    pub status: SandboxStatus,
    /// Stage is, while it is being made, how far it has come.
    pub stage: Stage,
    /// Reason says why it failed or was terminated, for people.
    pub reason: String,
    /// Name is its name, if it has one.
    pub name: String,
    /// Image is the image as it was asked for.
    pub image: String,
    /// ImageDigest is the digest that the image resolved to.
    pub image_digest: String,
    /// SnapshotID is the snapshot that it went on from, if it did.
    pub snapshot_id: String,
    /// CPUs are virtual CPUs as asked for.
    pub cpus: f64,
    /// MemoryMB is its memory in MiB.
    pub memory_mb: i32,
    /// Timeout is its idle time-out.
    pub timeout: Duration,
    /// Labels are the caller's own marks.
    pub labels: HashMap<String, String>,
    /// CreatedAt is when it was asked for.
    pub created_at: SystemTime,
    /// StartedAt is when its agent first answered; zero where it never did.
    pub started_at: Option<SystemTime>,
    /// EndedAt is when it ended; zero where it has not.
    pub ended_at: Option<SystemTime>,
}

impl From<forkyard::SandboxInfo> for SandboxInfo {
    fn from(info: forkyard::SandboxInfo) -> Self {
        let forkyard::SandboxInfo {
            sandbox_id,
            status,
            stage,
            reason,
            name,
            image,
            image_digest,
            snapshot_id,
            cpus,
            memory_mb,
            timeout_secs,
            labels,
            created_at_ms,
            started_at_ms,
            ended_at_ms,
        } = info;
        Self {
            sandbox_id: sandbox_id.to_string(),
            status: status.into(),
            stage: stage.into(),
            reason: reason.unwrap_or_default(),
            name: name.unwrap_or_default(),
            image,
            image_digest,
            snapshot_id: snapshot_id.map(|id| id.to_string()).unwrap_or_default(),
            cpus,
            memory_mb: value::size(memory_mb),
            timeout: Duration::from_secs(timeout_secs),
            labels: labels.into_iter().collect(),
            created_at: value::time(created_at_ms),
            started_at: started_at_ms.map(value::time),
            ended_at: ended_at_ms.map(value::time),
        }
    }
}

impl Sandbox {
    pub(crate) fn new(sandbox: forkyard::Sandbox) -> Arc<Self> {
        Arc::new(Self { sandbox })
    }
}

#[uniffi::export]
impl Sandbox {
    /// ID is the machine's id, sbx_….
    pub fn id(&self) -> String {
        self.sandbox.id().to_owned()
    }

    /// Name is the machine's name, if it has one.
    pub fn name(&self) -> String {
        self.sandbox.info().name.clone().unwrap_or_default()
    }

    /// Info answers the machine's record as it is now.
    pub async fn info(&self) -> Answer<SandboxInfo> {
        let mut sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.refresh().await.cloned() }).await?.into())
    }

    /// ExtendTimeout gives the machine another idle time-out, longer or shorter: whole seconds without any call, counted from this
    /// one on, after which it is terminated or, if it has a name, suspended; at most 30 days. A suspended machine stays so. It
    /// fails with [CodeSandboxLost] where the machine has ended.
    pub async fn extend_timeout(&self, timeout: Duration) -> Answer<SandboxInfo> {
        let (sandbox, secs) = (self.sandbox.clone(), value::seconds(timeout).unwrap_or_default());
        Ok(run(async move { sandbox.extend_timeout(secs).await }).await?.into())
    }

    /// Terminate ends the machine and waits for its end; ending one that has ended answers how it ended.
    pub async fn terminate(&self) -> Answer<SandboxInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.terminate().await }).await?.into())
    }
}
