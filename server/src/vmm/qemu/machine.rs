use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forkyard_protocol::SandboxId;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::{Mutex, OnceCell, broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::argv::NETWORK_CARD;
use super::launch::NETWORK;
use super::process::Process;
use super::qmp::{Event, Qmp};
use crate::vmm::{Freeze, Frozen, Machine, VmmError};

/// Bytes of the guest's console that an error shows.
const CONSOLE_TAIL: u64 = 2048;

/// How long a process may take to end after its monitor hung up, and what it said to be heard after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A machine under QEMU.
pub struct QemuMachine {
    sandbox_id: SandboxId,
    dir: PathBuf,
    process: Arc<Process>,
    monitor: OnceCell<Monitor>,
    /// Held while it is frozen; whether it was left standing still.
    pub(super) halted: Mutex<bool>,
}

/// A connection to a machine's monitor, and the task that hears its guest's end.
struct Monitor {
    qmp: Arc<Qmp>,
    guests_end: watch::Receiver<Option<String>>,
    listener: JoinHandle<()>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // The monitor takes one connection at a time: whoever follows the machine next needs it.
        self.listener.abort();
    }
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

impl QemuMachine {
    pub(super) fn new(sandbox_id: SandboxId, dir: PathBuf, process: Process) -> Arc<Self> {
        Arc::new(Self {
            sandbox_id,
            dir,
            process: Arc::new(process),
            monitor: OnceCell::new(),
            halted: Mutex::new(false),
        })
    }

    /// The connection to its monitor, made when it is first needed.
    pub(super) async fn qmp(&self) -> Result<&Qmp, VmmError> {
        let error = tokio::select! {
            connected = self.monitor.get_or_try_init(|| self.connect()) => match connected {
                Ok(monitor) => return Ok(&monitor.qmp),
                Err(error) => error,
            },
            reason = self.process.exited() => return Err(VmmError::Failed(reason)),
        };
        Err(self.explained(&error.to_string()).await)
    }

    /// What is known of a failure: a monitor that hangs up mostly does so as its process ends, whose own words say more.
    pub(super) async fn explained(&self, failure: &str) -> VmmError {
        let ended = timeout(LAST_WORDS, self.process.exited()).await;
        VmmError::Failed(ended.unwrap_or_else(|_| failure.to_owned()))
    }

    /// The directory that all it writes lies in.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the guest has ended, with a process that waits to be told to end too.
    pub(super) async fn guest_has_ended(&self) -> Result<bool, VmmError> {
        let status: Status = self.qmp().await?.execute("query-status", None).await?;
        Ok(["shutdown", "guest-panicked", "internal-error"].contains(&status.status.as_str()))
    }

    /// Ends it at once and does not wait.
    pub(super) fn send_kill(&self) -> Result<(), VmmError> {
        self.process.send_kill()
    }

    async fn connect(&self) -> Result<Monitor, VmmError> {
        let (qmp, events) = Qmp::connect(&self.dir.join("qmp")).await?;
        let (qmp, (sender, guests_end)) = (Arc::new(qmp), watch::channel(None));
        let listener = tokio::spawn(attend_guests_end(qmp.clone(), events, self.process.clone(), sender));
        Ok(Monitor { qmp, guests_end, listener })
    }

    async fn read_console(&self) -> Result<String, VmmError> {
        read_console(self.qmp().await?).await
    }

    /// Why the guest ended, if it was the guest that did. To be asked once the process has ended.
    async fn guests_end(&self) -> Option<String> {
        let mut end = self.monitor.get()?.guests_end.clone();
        // The connection breaks with the process, and the listener goes with the connection.
        let heard = timeout(LAST_WORDS, end.wait_for(Option::is_some)).await;
        heard.ok()?.ok()?.clone()
    }
}

impl Machine for QemuMachine {
    fn pid(&self) -> u32 {
        self.process.pid().as_raw_nonzero().get().unsigned_abs()
    }

    fn agent_socket(&self) -> PathBuf {
        self.dir.join("agent")
    }

    fn network_socket(&self) -> Option<PathBuf> {
        Some(self.dir.join(NETWORK)).filter(|socket| socket.exists())
    }

    fn set_link(&self, up: bool) -> BoxFuture<'_, Result<(), VmmError>> {
        Box::pin(async move {
            let arguments = serde_json::json!({ "name": NETWORK_CARD, "up": up });
            self.qmp().await?.execute::<IgnoredAny>("set_link", Some(arguments)).await.map(drop)
        })
    }

    fn exited(&self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let end = self.process.exited().await;
            self.guests_end().await.unwrap_or(end)
        })
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), VmmError>> {
        tracing::debug!(sandbox = %self.sandbox_id, "ending the machine");
        Box::pin(self.process.kill())
    }

    fn shutdown(&self, grace: Duration) -> BoxFuture<'_, Result<(), VmmError>> {
        Box::pin(async move {
            let quit = async {
                // QEMU may be gone before its answer is out.
                if let Err(error) = self.qmp().await?.execute::<IgnoredAny>("quit", None).await {
                    tracing::debug!(sandbox = %self.sandbox_id, %error, "no answer to 'quit'");
                }
                self.process.exited().await;
                Ok::<_, VmmError>(())
            };
            match timeout(grace, quit).await {
                Ok(Ok(())) => Ok(()),
                _ => self.kill().await,
            }
        })
    }

    fn freeze(&self, target: PathBuf, what: Freeze) -> BoxFuture<'_, Result<Frozen, VmmError>> {
        Box::pin(self.freeze_into(target, what))
    }

    fn compact(&self) -> BoxFuture<'_, Result<(), VmmError>> {
        Box::pin(self.merge_layers())
    }

    fn go_on(&self) -> BoxFuture<'_, Result<(), VmmError>> {
        Box::pin(async {
            let mut halted = self.halted.lock().await;
            self.run_on().await?;
            *halted = false;
            Ok(())
        })
    }

    fn console_tail(&self) -> BoxFuture<'_, String> {
        Box::pin(async {
            self.read_console().await.unwrap_or_else(|error| format!("(its console cannot be read: {error})"))
        })
    }
}

/// Waits for the guest to end, takes down its last words, and ends QEMU.
async fn attend_guests_end(
    qmp: Arc<Qmp>,
    mut events: broadcast::Receiver<Event>,
    process: Arc<Process>,
    end: watch::Sender<Option<String>>,
) {
    let what = loop {
        match events.recv().await {
            Ok(event) => {
                if let Some(what) = end_of_guest(&event) {
                    break what;
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    };
    let console = read_console(&qmp).await.unwrap_or_else(|error| format!("(it cannot be read: {error})"));
    end.send_replace(Some(format!("{what}; the end of its console: {console}")));
    if qmp.execute::<IgnoredAny>("quit", None).await.is_err() {
        // Either it is gone already or it does not listen.
        if let Err(error) = process.send_kill() {
            tracing::error!(%error, "a machine whose guest has ended could not be ended");
        }
    }
}

/// What an event says of the guest's end. One that the host brought about is no news to it.
fn end_of_guest(event: &Event) -> Option<&'static str> {
    if event.name != "SHUTDOWN" {
        return None;
    }
    match event.data["reason"].as_str()? {
        "guest-shutdown" => Some("the guest switched itself off"),
        "guest-reset" => Some("the guest restarted, as its kernel does when it panics or its agent fails"),
        "guest-panic" => Some("the guest's kernel panicked"),
        _ => None,
    }
}

async fn read_console(qmp: &Qmp) -> Result<String, VmmError> {
    let arguments = serde_json::json!({ "device": "console", "size": 65536, "format": "base64" });
    let text: String = qmp.execute("ringbuf-read", Some(arguments)).await?;
    let bytes = STANDARD.decode(text).map_err(|error| VmmError::Failed(error.to_string()))?;
    let from = bytes.len().saturating_sub(usize::try_from(CONSOLE_TAIL).unwrap_or(usize::MAX));
    Ok(String::from_utf8_lossy(&bytes[from..]).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_own_end_is_attended() {
        let event = |name: &str, reason: &str| Event {
            name: name.to_owned(),
            data: serde_json::json!({ "guest": true, "reason": reason }),
        };
        assert!(end_of_guest(&event("SHUTDOWN", "guest-reset")).unwrap().contains("panics"));
        assert!(end_of_guest(&event("SHUTDOWN", "guest-shutdown")).is_some());
        assert_eq!(end_of_guest(&event("SHUTDOWN", "host-qmp-quit")), None);
        assert_eq!(end_of_guest(&event("SHUTDOWN", "host-signal")), None);
        assert_eq!(end_of_guest(&event("RESET", "guest-reset")), None);
    }
}
