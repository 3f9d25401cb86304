use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ErrorBody, ErrorCode, NetworkPolicy, SandboxId, SnapshotId, validate_label, validate_name};

/// Most virtual CPUs of one machine.
pub const MAX_CPUS: f64 = 64.0;
/// Least memory of one machine, in MiB.
pub const MIN_MEMORY_MB: u64 = 128;
/// Most memory of one machine, in MiB (512 GiB).
pub const MAX_MEMORY_MB: u64 = 512 * 1024;
/// Longest idle time-out, in seconds (30 days).
pub const MAX_TIMEOUT_SECS: u64 = 30 * 24 * 3600;
/// Longest wait for room, in seconds (an hour).
pub const MAX_QUEUE_TIMEOUT_SECS: u64 = 3600;
/// Most labels of one machine.
pub const MAX_LABELS: usize = 64;

const DEFAULT_TIMEOUT_SECS: u64 = 600;

/// Asks for a machine: `POST /v1/sandboxes`, with an `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreateSandbox {
    /// An image's tag or digest. Default: `python`. Not together with `snapshot_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A snapshot to go on from instead. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// A name, unique in the project. A named machine is suspended at its idle time-out. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Virtual CPUs, more than 0 and at most 64. The machine gets the next whole number of them. Default: 1, or the
    /// snapshot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory in MiB, 128 to 524,288. Default: 512, or the snapshot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Seconds without any call after which an unnamed machine is terminated and a named one suspended: 1 to 2,592,000.
    /// Default: 600.
    #[serde(default = "default_timeout_secs")]
    pub timeout_secs: u64,
    /// Whether a call to it resumes it when it is suspended. Default: true.
    #[serde(default = "default_auto_resume")]
    pub auto_resume: bool,
    /// Seconds to wait for room in line with others, at most 3,600, where the host has none or the key may have no more. The
    /// keys' lines are served in turn. Default: 0, refused at once.
    #[serde(default)]
    pub queue_timeout_secs: u64,
    /// Environment of every process in it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The caller's own marks, at most 64.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it may reach. Default: nothing.
    #[serde(default, skip_serializing_if = "NetworkPolicy::is_default")]
    pub network: NetworkPolicy,
}

/// The image of a machine that nothing was said of.
pub const DEFAULT_IMAGE: &str = "python";
/// Its virtual CPUs.
pub const DEFAULT_CPUS: f64 = 1.0;
/// Its memory in MiB.
pub const DEFAULT_MEMORY_MB: u64 = 512;

fn default_timeout_secs() -> u64 {
    DEFAULT_TIMEOUT_SECS
}

fn default_auto_resume() -> bool {
    true
}

impl Default for CreateSandbox {
    fn default() -> Self {
        Self {
            image: None,
            snapshot_id: None,
            name: None,
            cpus: None,
            memory_mb: None,
            timeout_secs: default_timeout_secs(),
            auto_resume: default_auto_resume(),
            queue_timeout_secs: 0,
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            network: NetworkPolicy::default(),
        }
    }
}

impl CreateSandbox {
    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        let fail = |message: String| Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
        if let Some(cpus) = self.cpus
            && !(cpus.is_finite() && cpus > 0.0 && cpus <= MAX_CPUS)
        {
            return fail(format!("cpus must be more than 0 and at most {MAX_CPUS}, not {cpus}"));
        }
        if let Some(memory_mb) = self.memory_mb
            && !(MIN_MEMORY_MB..=MAX_MEMORY_MB).contains(&memory_mb)
        {
            return fail(format!(
                "memory_mb must be between {MIN_MEMORY_MB} and {MAX_MEMORY_MB}, not {memory_mb}"
            ));
        }
        if self.image.is_some() && self.snapshot_id.is_some() {
            return fail("give either image or snapshot_id: a snapshot has its image in it".to_owned());
        }
        validate_timeout(self.timeout_secs)?;
        if self.queue_timeout_secs > MAX_QUEUE_TIMEOUT_SECS {
            return fail(format!(
                "queue_timeout_secs must be at most {MAX_QUEUE_TIMEOUT_SECS}, not {}",
                self.queue_timeout_secs
            ));
        }
        if let Some(name) = &self.name {
            validate_name(name).or_else(|error| fail(error.to_string()))?;
        }
        validate_labels(&self.labels)?;
        self.network.validate()?;
        validate_env(&self.env)
    }
}

/// Checks an idle time-out.
pub(crate) fn validate_timeout(timeout_secs: u64) -> Result<(), ErrorBody> {
    if (1..=MAX_TIMEOUT_SECS).contains(&timeout_secs) {
        return Ok(());
    }
    let message = format!("timeout_secs must be between 1 and {MAX_TIMEOUT_SECS}, not {timeout_secs}");
    Err(ErrorBody::new(ErrorCode::InvalidArgument, message))
}

/// Checks a caller's marks: how many, and each.
pub(crate) fn validate_labels(labels: &BTreeMap<String, String>) -> Result<(), ErrorBody> {
    let fail = |message: String| Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
    if labels.len() > MAX_LABELS {
        return fail(format!("at most {MAX_LABELS} labels, not {}", labels.len()));
    }
    for (key, value) in labels {
        validate_label(key, value).or_else(|error| fail(error.to_string()))?;
    }
    Ok(())
}

/// Checks an environment: names without `=` and NUL, values without NUL, 32 KiB in all.
pub(crate) fn validate_env(env: &BTreeMap<String, String>) -> Result<(), ErrorBody> {
    let fail = |message: String| Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return fail(format!("'{}' is no name for an environment variable", name.escape_debug()));
        }
        if value.contains('\0') {
            return fail(format!("the value of environment variable '{name}' must not contain NUL"));
        }
    }
    let size: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if size > 32 * 1024 {
        return fail(format!("the environment takes {size} bytes; at most 32768 are allowed"));
    }
    Ok(())
}

/// Where a machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum SandboxStatus {
    /// Being made.
    Pending,
    /// Its agent answers.
    Running,
    /// Being put on disk.
    Suspending,
    /// On disk: it holds no memory and no processor, and goes on where it stood when it is resumed.
    Suspended,
    /// Coming back from disk.
    Resuming,
    /// Ended on purpose: by a call, its time-out or the server's end.
    Terminated,
    /// Ended by a fault; `reason` says which.
    Failed,
}

impl SandboxStatus {
    /// Whether the machine has not ended: it runs, or may still come to run.
    pub fn is_alive(self) -> bool {
        !matches!(self, Self::Terminated | Self::Failed)
    }

    /// Whether it holds memory on the host.
    pub fn holds_memory(self) -> bool {
        self.is_alive() && self != Self::Suspended
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Resuming => "resuming",
            Self::Terminated => "terminated",
            Self::Failed => "failed",
        }
    }
}

/// How far a machine that is being made has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Stage {
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

impl Stage {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::WaitingForTemplate => "waiting_for_template",
            Self::WaitingForTurn => "waiting_for_turn",
            Self::Booting => "booting",
            Self::Restoring => "restoring",
            Self::Warming => "warming",
            Self::Freezing => "freezing",
        }
    }
}

/// A machine as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sandbox {
    /// Its id.
    pub sandbox_id: SandboxId,
    /// Where it stands.
    pub status: SandboxStatus,
    /// While it is being made, how far it has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Why it failed or was terminated, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image as it was asked for.
    pub image: String,
    /// The digest that the image resolved to.
    pub image_digest: String,
    /// The snapshot that it went on from, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// Virtual CPUs as asked for.
    pub cpus: f64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Idle time-out in seconds.
    pub timeout_secs: u64,
    /// The caller's marks.
    pub labels: BTreeMap<String, String>,
    /// When it was asked for: milliseconds since 1970.
    pub created_at_ms: u64,
    /// When its agent first answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
}

/// One page of machines, newest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SandboxPage {
    /// The machines.
    pub sandboxes: Vec<Sandbox>,
    /// Given back as `cursor`, it yields the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl FnOnce(&mut CreateSandbox)) -> String {
        let mut request = CreateSandbox::default();
        change(&mut request);
        request.validate().unwrap_err().message
    }

    #[test]
    fn defaults_are_valid() {
        let request: CreateSandbox = serde_json::from_str("{}").unwrap();
        assert_eq!(request, CreateSandbox::default());
        request.validate().unwrap();
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        assert!(message(|r| r.cpus = Some(0.0)).starts_with("cpus must be more than 0"));
        assert!(message(|r| r.cpus = Some(f64::NAN)).starts_with("cpus"));
        assert!(
            message(|r| r.memory_mb = Some(1024 * 1024))
                .starts_with("memory_mb must be between 128 and 524288")
        );
        assert!(message(|r| r.timeout_secs = 0).starts_with("timeout_secs"));
        assert!(message(|r| r.name = Some("a/b".into())).starts_with("a name must be"));
        assert!(message(|r| drop(r.env.insert("A=B".into(), String::new()))).contains("'A=B'"));
        assert!(message(|r| drop(r.env.insert("A".into(), "x".repeat(33 * 1024)))).contains("32768"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<CreateSandbox>(r#"{"memory": 1}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `memory`"));
    }
}
