use std::collections::BTreeMap;

use forkyard_protocol::{ErrorBody, ErrorCode, ProjectId, Resource, Snapshot, SnapshotStatus};
use serde::{Deserialize, Serialize};

use super::Contents;
use crate::vmm::{Accelerator, Devices, whole_cpus};

/// A snapshot as the store holds it: what the API shows, and what only the server needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What the API shows.
    pub view: Snapshot,
    /// Whose it is.
    pub project: ProjectId,
    /// What its machines' processes start from.
    pub defaults: GuestDefaults,
    /// What ran the machine: its memory holds what that processor could do.
    pub accelerator: String,
    /// Its files; none until it is completed.
    pub contents: Contents,
    /// What kind of failure kept it from being made.
    #[serde(default)]
    pub failure: Option<ErrorCode>,
    /// The machine's devices.
    #[serde(default)]
    pub devices: Devices,
}

/// What a guest's processes start from unless they say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestDefaults {
    /// Environment: the image's and, in a snapshot, that of the machine it was taken of.
    pub env: BTreeMap<String, String>,
    /// Account.
    pub user: String,
    /// Folder.
    pub cwd: String,
}

impl Record {
    /// Whether it is there, whole; the error says why not.
    pub fn made(&self) -> Result<(), ErrorBody> {
        let Snapshot { snapshot_id: id, status, reason, .. } = &self.view;
        let message = match status {
            SnapshotStatus::Completed => return Ok(()),
            SnapshotStatus::InProgress => format!("snapshot {id} is still being made"),
            SnapshotStatus::Failed => {
                let reason = reason.as_deref().unwrap_or("no reason recorded");
                format!("snapshot {id} could not be made: {reason}")
            }
        };
        let code = self.failure.unwrap_or(ErrorCode::FailedPrecondition);
        Err(ErrorBody::new(code, message).about(Resource::Snapshot))
    }

    /// Whether a machine can be made of it here; the error says why not. `cpus` and `memory_mb` are what was asked for.
    pub fn admits(
        &self,
        accelerator: Accelerator,
        cpus: Option<f64>,
        memory_mb: Option<u64>,
    ) -> Result<(), ErrorBody> {
        self.made()?;
        let id = &self.view.snapshot_id;
        let refuse =
            |message| Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).about(Resource::Snapshot));
        if !self.contents.files.contains_key("ram") {
            return Ok(());
        }
        if self.accelerator != accelerator.as_str() {
            return refuse(format!(
                "snapshot {id} holds memory of a machine that ran with '{}'; this host runs machines with '{}'",
                self.accelerator,
                accelerator.as_str()
            ));
        }
        let baked_in = |what: &str, wanted: String, has: String| {
            let message = format!(
                "{what} {wanted} is not possible: snapshot {id} holds memory, into which {what} {has} is baked in; \
                 leave {what} out, or take a filesystem snapshot"
            );
            Err(ErrorBody::new(ErrorCode::InvalidArgument, message).about(Resource::Snapshot))
        };
        if let Some(cpus) = cpus.filter(|cpus| whole_cpus(*cpus) != whole_cpus(self.view.cpus)) {
            return baked_in("cpus", cpus.to_string(), self.view.cpus.to_string());
        }
        match memory_mb.filter(|memory_mb| *memory_mb != self.view.memory_mb) {
            Some(memory_mb) => baked_in("memory_mb", memory_mb.to_string(), self.view.memory_mb.to_string()),
            None => Ok(()),
        }
    }
}
