use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::SandboxId;
use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::machine::Status;
use super::qmp::{Event, Qmp};
use crate::host::free_disk_mb;
use crate::vmm::VmmError;

/// How often a full disk is looked at while a guest waits for it: nothing tells of room on a file system.
const LOOK: Duration = Duration::from_secs(1);

/// How much room there must be for the guest to go on, in MiB. Less would be full again with its next breath.
const ROOM_MB: u64 = 64;

/// Whether a guest stands still. QEMU stops one whose write finds the host's disk full, rather than tell it of an error that
/// would cost it its file system, and tries the write again when the guest goes on: nothing is lost but time.
pub(super) struct Stalled {
    sandbox_id: SandboxId,
    qmp: Arc<Qmp>,
    dir: PathBuf,
    /// The machine's: held while it is frozen; whether it stands still for good.
    halted: Arc<Mutex<bool>>,
    stands: bool,
}

/// Whether an event says that QEMU stopped the guest because there is no room.
pub(super) fn is_stall(event: &Event) -> bool {
    event.name == "BLOCK_IO_ERROR"
        && event.data["action"].as_str() == Some("stop")
        && event.data["nospace"].as_bool() == Some(true)
}

impl Stalled {
    /// One that runs, as far as is known.
    pub(super) fn new(sandbox_id: SandboxId, qmp: Arc<Qmp>, dir: PathBuf, halted: Arc<Mutex<bool>>) -> Self {
        Self { sandbox_id, qmp, dir, halted, stands: false }
    }

    /// Asks QEMU, where events may have been missed: an earlier server's machine may stand still already.
    pub(super) async fn look(&mut self) {
        match self.qmp.execute::<Status>("query-status", None).await {
            Ok(status) if status.status == "io-error" => self.stands(),
            Ok(_) => {}
            Err(error) => tracing::debug!(sandbox = %self.sandbox_id, %error, "its status is not known"),
        }
    }

    /// Takes note that the guest stands still.
    pub(super) fn stands(&mut self) {
        if !self.stands {
            tracing::warn!(
                sandbox = %self.sandbox_id,
                "the host's disk is full: the machine stands still until there are {ROOM_MB} MiB"
            );
        }
        self.stands = true;
    }

    /// Has the guest go on once there is room; for ever where it runs.
    pub(super) async fn goes_on(&mut self) {
        if !self.stands {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            match self.try_to_go_on().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(sandbox = %self.sandbox_id, %error, "a machine that a full disk stopped does not go on");
                }
            }
        }
        self.stands = false;
    }

    /// Whether it need not be looked after any more.
    async fn try_to_go_on(&self) -> Result<bool, VmmError> {
        // Frozen just now, it goes on with its freezing, whose end it must not forestall.
        let Ok(halted) = self.halted.try_lock() else { return Ok(false) };
        if *halted {
            return Ok(true);
        }
        let dir = self.dir.clone();
        let free = spawn_blocking(move || free_disk_mb(&dir)).await;
        let free = free.map_err(|error| VmmError::Failed(error.to_string()))?;
        if free.map_err(|error| VmmError::of_files("the machine's folder", &error))? < ROOM_MB {
            return Ok(false);
        }
        self.qmp.execute::<IgnoredAny>("cont", None).await?;
        tracing::info!(sandbox = %self.sandbox_id, "there is room on the host's disk again: the machine goes on");
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_disk_is_waited_for() {
        let event = |name: &str, action: &str, nospace: bool| Event {
            name: name.to_owned(),
            data: serde_json::json!({ "action": action, "nospace": nospace }),
        };
        assert!(is_stall(&event("BLOCK_IO_ERROR", "stop", true)));
        assert!(!is_stall(&event("BLOCK_IO_ERROR", "stop", false)));
        assert!(!is_stall(&event("BLOCK_IO_ERROR", "report", true)));
        assert!(!is_stall(&event("STOP", "stop", true)));
    }
}
