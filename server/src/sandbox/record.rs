use std::collections::BTreeMap;

use forkyard_protocol::{
    CreateSandbox, ErrorBody, ErrorCode, ForkSandbox, KeyId, KeyInfo, NetworkPolicy, PoolId, ProjectId,
    Sandbox, SandboxEvent, SandboxEventKind, SandboxId, SandboxStatus, Stage,
};
use serde::{Deserialize, Serialize};

use super::origin::Origin;
use crate::clock::now_ms;
use crate::pool::Kind;
use crate::snapshot::GuestDefaults;
use crate::vmm::{Accelerator, Devices, whole_cpus};

/// A machine as the store holds it: what the API shows, and what only the server needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What the API shows.
    pub view: Sandbox,
    /// Whose it is.
    pub project: ProjectId,
    /// The key whose budget it holds.
    pub key_id: KeyId,
    /// What its processes start from.
    #[serde(default)]
    pub defaults: GuestDefaults,
    /// Environment of its processes on top of that.
    pub env: BTreeMap<String, String>,
    /// Whether a call resumes it when it is suspended.
    #[serde(default)]
    pub auto_resume: bool,
    /// What it may reach.
    #[serde(default)]
    pub network: NetworkPolicy,
    /// The devices that it was started with.
    #[serde(default)]
    pub devices: Devices,
    /// What runs it, or ran it when it was put on disk; empty until it runs.
    #[serde(default)]
    pub accelerator: String,
    /// The creating call, so that repeating it finds this machine.
    pub creation: Option<Creation>,
    /// Whose twin it was made as.
    #[serde(default)]
    pub forked_from: Option<SandboxId>,
    /// The pool that it was made for.
    #[serde(default)]
    pub pool_id: Option<PoolId>,
    /// Where it stands in that pool. Not in the store: a machine that nobody has claimed is ended with the server.
    #[serde(skip)]
    pub place: Place,
}

/// Where a machine stands in a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// It is somebody's.
    #[default]
    Taken,
    /// It is being made ready.
    Starting,
    /// It waits to be claimed.
    Ready,
    /// It is to end unclaimed.
    Leaving,
}

/// A creating call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creation {
    /// The caller's `Idempotency-Key`.
    pub idempotency_key: String,
    /// The request as it was sent, to tell a repetition from another request under the same key.
    pub request: String,
}

impl Record {
    /// A machine that is about to be made.
    pub fn pending(
        id: SandboxId,
        caller: &KeyInfo,
        request: CreateSandbox,
        origin: &Origin,
        creation: Option<Creation>,
    ) -> Self {
        Self {
            view: Sandbox {
                sandbox_id: id,
                status: SandboxStatus::Pending,
                stage: Some(Stage::Accepted),
                reason: None,
                name: request.name,
                image: origin.image.clone(),
                image_digest: origin.image_digest.clone(),
                snapshot_id: origin.snapshot_id.clone(),
                cpus: request.cpus.unwrap_or(origin.cpus),
                memory_mb: request.memory_mb.unwrap_or(origin.memory_mb),
                timeout_secs: request.timeout_secs,
                labels: request.labels,
                created_at_ms: now_ms(),
                started_at_ms: None,
                ended_at_ms: None,
            },
            project: caller.project.clone(),
            key_id: caller.key_id.clone(),
            defaults: origin.defaults.clone(),
            env: request.env,
            auto_resume: request.auto_resume,
            network: request.network,
            devices: origin.devices,
            accelerator: String::new(),
            creation,
            forked_from: None,
            pool_id: None,
            place: Place::Taken,
        }
    }

    /// A twin of this machine that is about to be made.
    pub fn fork_of(
        source: &Self,
        id: SandboxId,
        caller: &KeyInfo,
        request: ForkSandbox,
        creation: Option<Creation>,
    ) -> Self {
        let mut fork = source.clone();
        fork.view.sandbox_id = id;
        fork.forked_from = Some(source.view.sandbox_id.clone());
        fork.view.status = SandboxStatus::Pending;
        fork.view.stage = Some(Stage::Accepted);
        // A name is one machine's.
        fork.view.name = None;
        fork.view.timeout_secs = request.timeout_secs.unwrap_or(fork.view.timeout_secs);
        fork.view.labels = request.labels.unwrap_or(fork.view.labels);
        fork.view.created_at_ms = now_ms();
        fork.view.started_at_ms = None;
        fork.key_id = caller.key_id.clone();
        fork.env.extend(request.env);
        fork.network = request.network.unwrap_or(fork.network);
        fork.creation = creation;
        fork.pool_id = None;
        fork
    }

    /// That it was made.
    pub fn creation_event(&self) -> SandboxEvent {
        SandboxEvent {
            snapshot_id: self.view.snapshot_id.clone().filter(|_| self.forked_from.is_none()),
            forked_from: self.forked_from.clone(),
            ..SandboxEvent::new(self.view.created_at_ms, SandboxEventKind::Created)
        }
    }

    /// That it has ended, if it has. Which of those that ended on purpose were idle it does not know.
    pub fn end_event(&self) -> Option<SandboxEvent> {
        let kind = match self.view.status {
            SandboxStatus::Terminated => SandboxEventKind::Terminated,
            SandboxStatus::Failed if self.view.started_at_ms.is_some() => SandboxEventKind::Lost,
            SandboxStatus::Failed => SandboxEventKind::Failed,
            _ => return None,
        };
        let at_ms = self.view.ended_at_ms.unwrap_or_else(now_ms);
        Some(SandboxEvent { reason: self.view.reason.clone(), ..SandboxEvent::new(at_ms, kind) })
    }

    /// What it is alike to before anybody has used it.
    pub fn kind(&self) -> Kind {
        Kind {
            image_digest: self.view.image_digest.clone(),
            snapshot_id: self.view.snapshot_id.clone(),
            vcpus: whole_cpus(self.view.cpus),
            memory_mb: self.view.memory_mb,
        }
    }

    /// Whether it is somebody's, rather than waiting in a pool: only then the API shows it.
    pub fn is_taken(&self) -> bool {
        self.place == Place::Taken
    }

    /// Whether it can be handed out in the place of one that would be made.
    pub fn serves(&self, wanted: &Self) -> bool {
        self.place == Place::Ready && self.project == wanted.project && self.kind() == wanted.kind()
    }

    /// Whether a call to it, as it stands, is to resume it.
    pub fn wakes(&self) -> bool {
        let away = [SandboxStatus::Suspending, SandboxStatus::Suspended, SandboxStatus::Resuming];
        self.auto_resume && away.contains(&self.view.status)
    }

    /// Whether its memory can go on here; the error says why not.
    pub fn goes_on_with(&self, accelerator: Accelerator) -> Result<(), ErrorBody> {
        // Records of earlier versions do not say.
        if self.accelerator.is_empty() || self.accelerator == accelerator.as_str() {
            return Ok(());
        }
        let message = format!(
            "the memory of sandbox {} is that of a machine that ran with '{}'; this host runs machines with '{}'",
            self.view.sandbox_id,
            self.accelerator,
            accelerator.as_str()
        );
        Err(ErrorBody::new(ErrorCode::FailedPrecondition, message))
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.view.status.is_alive()
    }

    /// The error for calls that meet a machine that is not running.
    pub fn not_running(&self) -> ErrorBody {
        let id = &self.view.sandbox_id;
        let reason = self.view.reason.as_deref().unwrap_or("no reason recorded");
        match self.view.status {
            SandboxStatus::Pending | SandboxStatus::Running => {
                ErrorBody::new(ErrorCode::Unavailable, format!("sandbox {id} is still starting"))
                    .retry_after_ms(500)
            }
            SandboxStatus::Suspending | SandboxStatus::Resuming => {
                ErrorBody::new(ErrorCode::Unavailable, format!("sandbox {id} is being suspended or resumed"))
                    .retry_after_ms(100)
            }
            SandboxStatus::Suspended => {
                let message = format!("sandbox {id} is suspended; resume it first");
                ErrorBody::new(ErrorCode::FailedPrecondition, message)
            }
            SandboxStatus::Terminated => {
                ErrorBody::new(ErrorCode::SandboxLost, format!("sandbox {id} was terminated: {reason}"))
            }
            SandboxStatus::Failed => {
                ErrorBody::new(ErrorCode::SandboxLost, format!("sandbox {id} failed: {reason}"))
            }
        }
    }
}

/// How a machine ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// On purpose; the reason is for people.
    Terminated(String),
    /// Since nobody had called it for its idle time-out, in seconds.
    TimedOut(u64),
    /// By a fault; the reason is for people.
    Failed(String),
}

impl End {
    /// Writes the end into a record.
    pub fn apply(&self, record: &mut Record) {
        let (status, reason) = match self {
            Self::Terminated(reason) => (SandboxStatus::Terminated, reason.clone()),
            Self::TimedOut(secs) => (SandboxStatus::Terminated, no_call_for(*secs)),
            Self::Failed(reason) => (SandboxStatus::Failed, reason.clone()),
        };
        record.view.status = status;
        record.view.stage = None;
        record.view.reason = Some(reason);
        record.view.ended_at_ms = Some(now_ms());
    }
}

/// Why an idle machine is put on disk, or ended.
pub(super) fn no_call_for(secs: u64) -> String {
    format!("no call for {secs} seconds")
}
