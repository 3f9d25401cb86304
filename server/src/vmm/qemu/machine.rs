use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forkyard_protocol::SandboxId;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::process::Process;
use super::qmp::Qmp;
use crate::vmm::{Machine, VmmError};

/// Bytes of the guest's console that an error shows.
const CONSOLE_TAIL: u64 = 2048;

/// How long a process may take to end after its monitor hung up.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A machine under QEMU.
pub struct QemuMachine {
    pub(super) sandbox_id: SandboxId,
    pub(super) dir: PathBuf,
    pub(super) process: Process,
    pub(super) qmp: OnceCell<Qmp>,
}

impl QemuMachine {
    pub(super) fn new(sandbox_id: SandboxId, dir: PathBuf, process: Process) -> Arc<Self> {
        Arc::new(Self { sandbox_id, dir, process, qmp: OnceCell::new() })
    }

    /// The connection to its monitor, made when it is first needed.
    pub(super) async fn qmp(&self) -> Result<&Qmp, VmmError> {
        let connecting = self.qmp.get_or_try_init(|| async { Qmp::connect(&self.dir.join("qmp")).await });
        let error = tokio::select! {
            connected = connecting => match connected {
                Ok(qmp) => return Ok(qmp),
                Err(error) => error,
            },
            reason = self.process.exited() => return Err(VmmError(reason)),
        };
        // A monitor that hangs up mostly does so as its process ends, whose own words say more.
        match timeout(LAST_WORDS, self.process.exited()).await {
            Ok(reason) => Err(VmmError(reason)),
            Err(_) => Err(error),
        }
    }

    async fn read_console(&self) -> Result<String, VmmError> {
        let arguments = serde_json::json!({ "device": "console", "size": 65536, "format": "base64" });
        let answer = self.qmp().await?.execute("ringbuf-read", Some(arguments)).await?;
        let text = answer.as_str().ok_or_else(|| VmmError("the console's content is no text".to_owned()))?;
        let bytes = STANDARD.decode(text).map_err(|error| VmmError(error.to_string()))?;
        let from = bytes.len().saturating_sub(usize::try_from(CONSOLE_TAIL).unwrap_or(usize::MAX));
        Ok(String::from_utf8_lossy(&bytes[from..]).trim().to_owned())
    }
}

impl Machine for QemuMachine {
    fn pid(&self) -> u32 {
        self.process.pid().as_raw_nonzero().get().unsigned_abs()
    }

    fn agent_socket(&self) -> PathBuf {
        self.dir.join("agent")
    }

    fn exited(&self) -> BoxFuture<'_, String> {
        Box::pin(self.process.exited())
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), VmmError>> {
        tracing::debug!(sandbox = %self.sandbox_id, "ending the machine");
        Box::pin(self.process.kill())
    }

    fn console_tail(&self) -> BoxFuture<'_, String> {
        Box::pin(async {
            self.read_console().await.unwrap_or_else(|error| format!("(its console cannot be read: {error})"))
        })
    }
}
