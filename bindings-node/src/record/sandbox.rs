use std::collections::BTreeMap;

use forkyard::{CreateSandbox, Error, ForkSandbox};
use napi_derive::napi;

use super::mirror;
use super::network::NetworkRequest;
use super::snapshot::snapshot_id;
use crate::value::{number, seconds, secs_as_millis, whole_or_none};

/// Where a machine stands: being made; its agent answers; on its way to disk; on disk; on its way back; ended on purpose;
/// ended by a fault, of which `reason` says more.
#[napi(string_enum = "snake_case")]
pub enum SandboxStatus {
    Pending,
    Running,
    Suspending,
    Suspended,
    Resuming,
    Terminated,
    Failed,
}

mirror!(
    SandboxStatus =
        forkyard::SandboxStatus { Pending, Running, Suspending, Suspended, Resuming, Terminated, Failed }
);

/// How far a machine that is being made has come.
#[napi(string_enum = "snake_case")]
pub enum Stage {
    Accepted,
    WaitingForTemplate,
    WaitingForTurn,
    Booting,
    Restoring,
    Warming,
    Freezing,
}

mirror!(
    Stage = forkyard::Stage {
        Accepted,
        WaitingForTemplate,
        WaitingForTurn,
        Booting,
        Restoring,
        Warming,
        Freezing
    }
);

/// A machine as the server shows it.
#[napi(object, object_from_js = false)]
pub struct SandboxInfo {
    /// Its id, `sbx_…`.
    pub sandbox_id: String,
    /// Where it stands.
    pub status: SandboxStatus,
    /// While it is being made, how far it has come.
    pub stage: Option<Stage>,
    /// Why it failed or was terminated, for people.
    pub reason: Option<String>,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The image as it was asked for.
    pub image: String,
    /// The digest that the image resolved to.
    pub image_digest: String,
    /// The snapshot that it went on from, if it did.
    pub snapshot_id: Option<String>,
    /// Virtual CPUs as asked for.
    pub cpu: f64,
    /// Memory in MiB.
    pub memory_mb: f64,
    /// Milliseconds without any call after which it is terminated or, if it has a name, suspended.
    pub timeout_ms: f64,
    /// The caller's own marks.
    pub labels: BTreeMap<String, String>,
    /// When it was asked for: milliseconds since 1970.
    pub created_at_ms: f64,
    /// When its agent first answered.
    pub started_at_ms: Option<f64>,
    /// When it ended.
    pub ended_at_ms: Option<f64>,
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
            sandbox_id: sandbox_id.into(),
            status: status.into(),
            stage: stage.map(Into::into),
            reason,
            name,
            image,
            image_digest,
            snapshot_id: snapshot_id.map(Into::into),
            cpu: cpus,
            memory_mb: number(memory_mb),
            timeout_ms: secs_as_millis(timeout_secs),
            labels,
            created_at_ms: number(created_at_ms),
            started_at_ms: started_at_ms.map(number),
            ended_at_ms: ended_at_ms.map(number),
        }
    }
}

/// Which machines to list: those that fit all that is said here.
#[napi(object, object_to_js = false)]
pub struct SandboxFilter {
    /// Only those of this name: at most one that has not ended.
    pub name: Option<String>,
    /// Only those in this state.
    pub status: Option<SandboxStatus>,
    /// Only those of this image: its tag as it was asked for, or its digest.
    pub image: Option<String>,
    /// Only those with all of these labels.
    pub labels: Option<BTreeMap<String, String>>,
}

impl SandboxFilter {
    /// The core's, with pages of so many.
    pub fn paged(self, page_size: u32) -> forkyard::SandboxFilter {
        let Self { name, status, image, labels } = self;
        forkyard::SandboxFilter {
            name,
            status: status.map(Into::into),
            image,
            labels: labels.unwrap_or_default(),
            page_size: Some(page_size),
        }
    }
}

/// What a machine is to be.
#[napi(object, object_to_js = false)]
pub struct CreateRequest {
    /// An image's tag or digest. Default: `python`. Not together with `snapshotId`.
    pub image: Option<String>,
    /// A snapshot to go on from instead of an image.
    pub snapshot_id: Option<String>,
    /// A name, unique in the project. A machine with a name is suspended at its idle time-out.
    pub name: Option<String>,
    /// Virtual CPUs, above 0 and at most 64; part of one is a whole one. Default: 1, or the snapshot's.
    pub cpu: Option<f64>,
    /// Memory in MiB, 128 to 524,288. Default: 512, or the snapshot's.
    pub memory_mb: Option<f64>,
    /// Milliseconds without any call after which it is terminated or, if it has a name, suspended; rounded up to whole
    /// seconds, at most 30 days. Default: 600,000.
    pub timeout_ms: Option<f64>,
    /// Whether a call to it resumes it when it is suspended. Default: true.
    pub auto_resume: Option<bool>,
    /// Milliseconds to wait for room in line with others, at most an hour, where the host has none or the key may have no
    /// more machines; the keys' lines are served in turn. Default: 0, refused at once.
    pub queue_timeout_ms: Option<f64>,
    /// Environment of every process in it.
    pub env: Option<BTreeMap<String, String>>,
    /// The caller's own marks, at most 64.
    pub labels: Option<BTreeMap<String, String>>,
}

impl CreateRequest {
    /// The request for a machine that may reach this.
    pub fn with(self, network: NetworkRequest) -> Result<CreateSandbox, Error> {
        let Self {
            image,
            snapshot_id: snapshot,
            name,
            cpu,
            memory_mb,
            timeout_ms,
            auto_resume,
            queue_timeout_ms,
            env,
            labels,
        } = self;
        let default = CreateSandbox::default();
        Ok(CreateSandbox {
            image,
            snapshot_id: snapshot.map(snapshot_id).transpose()?,
            name,
            cpus: cpu,
            memory_mb: whole_or_none("memoryMb", memory_mb)?,
            timeout_secs: timeout_ms.map_or(Ok(default.timeout_secs), |value| seconds("timeoutMs", value))?,
            auto_resume: auto_resume.unwrap_or(default.auto_resume),
            queue_timeout_secs: match queue_timeout_ms {
                None | Some(0.0) => default.queue_timeout_secs,
                Some(value) => seconds("queueTimeoutMs", value)?,
            },
            env: env.unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            network: network.policy()?.unwrap_or_default(),
        })
    }
}

/// What twins of a machine are to be.
#[napi(object, object_to_js = false)]
pub struct ForkRequest {
    /// Added to the machine's environment, for processes that start in the twins.
    pub env: Option<BTreeMap<String, String>>,
    /// The twins' marks. Default: the machine's.
    pub labels: Option<BTreeMap<String, String>>,
    /// The twins' idle time-out in milliseconds. Default: the machine's.
    pub timeout_ms: Option<f64>,
}

impl ForkRequest {
    /// The request for so many that may reach this; where nothing is said of it, what the machine may.
    pub fn of(self, count: u32, network: NetworkRequest) -> Result<ForkSandbox, Error> {
        let Self { env, labels, timeout_ms } = self;
        let timeout_secs = timeout_ms.map(|value| seconds("timeoutMs", value)).transpose()?;
        let network = network.policy()?;
        Ok(ForkSandbox { count, env: env.unwrap_or_default(), labels, timeout_secs, network })
    }
}
