//! Whether KVM can be used. `/dev/kvm` may open and create machines and still not run ordinary guests, which then hang
//! without an error: so it is proved, first by a few instructions, then by booting the real kernel.

mod confirm;
mod vcpu;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Accelerator;

pub use confirm::confirm;

/// How long the guest's few instructions may take once the machine is ready: a working KVM takes under a millisecond.
const RUN_DEADLINE: Duration = Duration::from_millis(100);

/// How long the child may take to start and to make its machine.
const START_DEADLINE: Duration = Duration::from_secs(5);

/// How long a killed child may take to go. One that the kernel holds for longer is left behind.
const KILL_DEADLINE: Duration = Duration::from_secs(1);

/// The program's hidden command that calls [`run_child`].
pub const CHILD_COMMAND: &str = "probe-kvm";

const DEVICE: &str = "/dev/kvm";

/// What is known of KVM on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum KvmVerdict {
    /// It runs guests.
    Usable {
        /// Whether a real kernel was booted, not only the probe's instructions.
        confirmed: bool,
    },
    /// There is no `/dev/kvm`.
    Absent,
    /// There is one, and this account may not open it.
    Forbidden,
    /// It opens and does not run guests.
    Unusable {
        /// What went wrong.
        reason: String,
    },
}

impl KvmVerdict {
    /// What machines run on, given this.
    pub fn accelerator(&self) -> Accelerator {
        match self {
            Self::Usable { .. } => Accelerator::Kvm,
            Self::Absent | Self::Forbidden | Self::Unusable { .. } => Accelerator::Tcg,
        }
    }
}

impl std::fmt::Display for KvmVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usable { confirmed: true } => write!(f, "KVM works: it booted the kernel"),
            Self::Usable { confirmed: false } => {
                write!(f, "KVM runs instructions; that it boots a kernel is not proved yet")
            }
            Self::Absent => {
                write!(f, "there is no {DEVICE}: no hardware virtualisation, or its module is not loaded")
            }
            Self::Forbidden => write!(f, "this account may not open {DEVICE}"),
            Self::Unusable { reason } => write!(f, "{DEVICE} opens but does not run guests: {reason}"),
        }
    }
}

/// A kernel to confirm the verdict with.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'a> {
    /// Uncompressed, started through PVH.
    pub vmlinux: &'a Path,
    /// Its initial RAM disk.
    pub initrd: &'a Path,
}

/// The verdict for this host, from the cache in `data_dir` if it was reached since the host's boot. With a kernel, one that
/// the instructions passed is confirmed by booting it (seconds); without, it stays unconfirmed.
///
/// `helper` is a command that calls [`run_child`]: this program with its hidden argument.
pub async fn verdict(data_dir: &Path, helper: Command, kernel: Option<Kernel<'_>>) -> KvmVerdict {
    // What a user can change without a restart is looked at each time.
    match std::fs::File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return KvmVerdict::Forbidden,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return KvmVerdict::Absent,
        Err(error) => return KvmVerdict::Unusable { reason: error.to_string() },
    }
    let boot_id = match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(text) => text.trim().to_owned(),
        Err(error) => {
            tracing::warn!(%error, "the host's boot id cannot be read; the KVM verdict is not kept");
            String::new()
        }
    };
    let cache = Cache { path: data_dir.join("kvm.json"), boot_id };
    let cached = cache.load();
    if let Some(verdict) = &cached
        && (kernel.is_none() || *verdict != (KvmVerdict::Usable { confirmed: false }))
    {
        return verdict.clone();
    }
    let verdict = match cached {
        Some(verdict) => verdict,
        None => run_probe(helper).await,
    };
    let verdict = match (verdict, kernel) {
        (KvmVerdict::Usable { .. }, Some(kernel)) => confirm(kernel).await,
        (verdict, _) => verdict,
    };
    cache.save(&verdict);
    verdict
}

/// Runs the probe's instructions in a child process, so that a KVM that never comes back holds nobody but it.
pub async fn run_probe(mut helper: Command) -> KvmVerdict {
    helper.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = match helper.spawn() {
        Ok(child) => child,
        Err(error) => return unusable(format!("the probe cannot be started: {error}")),
    };
    let verdict = follow(&mut child).await;
    // The answer is had; a child that has not ended by itself is stuck.
    if let Err(error) = child.start_kill() {
        tracing::debug!(%error, "the KVM probe had ended");
    }
    if timeout(KILL_DEADLINE, child.wait()).await.is_err() {
        tracing::warn!("the KVM probe cannot be ended: the host's kernel holds it");
    }
    verdict
}

async fn follow(child: &mut Child) -> KvmVerdict {
    let Some(stdout) = child.stdout.take() else {
        return unusable("the probe has no output".to_owned());
    };
    let mut lines = BufReader::new(stdout).lines();
    match timeout(START_DEADLINE, lines.next_line()).await {
        Err(_) => unusable(format!("no machine within {} seconds", START_DEADLINE.as_secs())),
        Ok(Err(error)) => unusable(error.to_string()),
        Ok(Ok(None)) => unusable("the probe ended without an answer".to_owned()),
        Ok(Ok(Some(line))) if line == READY => match timeout(RUN_DEADLINE, lines.next_line()).await {
            Err(_) => unusable(format!(
                "a few instructions in long mode did not end within {} ms",
                RUN_DEADLINE.as_millis()
            )),
            Ok(Ok(Some(line))) if line == PASSED => KvmVerdict::Usable { confirmed: false },
            Ok(Ok(Some(line))) => unusable(line),
            Ok(Ok(None)) => unusable("the probe ended in the middle of the run".to_owned()),
            Ok(Err(error)) => unusable(error.to_string()),
        },
        Ok(Ok(Some(line))) => unusable(line),
    }
}

fn unusable(reason: String) -> KvmVerdict {
    KvmVerdict::Unusable { reason }
}

/// What the child says once its machine is made, so that the run alone is timed.
const READY: &str = "ready";
/// What it says when the instructions did what they should; anything else is the reason why not.
const PASSED: &str = "passed";

/// The child's whole work: runs the instructions and prints the outcome.
pub fn run_child() {
    // Standard output is a pipe and its lines end here: each is with the parent at once.
    match vcpu::run(|| println!("{READY}")) {
        Ok(()) => println!("{PASSED}"),
        Err(error) => println!("{error}"),
    }
}

/// The verdict as kept between runs, for as long as the host is up.
struct Cache {
    path: PathBuf,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    boot_id: String,
    #[serde(flatten)]
    verdict: KvmVerdict,
}

impl Cache {
    fn load(&self) -> Option<KvmVerdict> {
        // An unreadable cache is as good as none: the probe is run again and writes it anew.
        let kept: Kept = serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()?;
        (!self.boot_id.is_empty() && kept.boot_id == self.boot_id).then_some(kept.verdict)
    }

    fn save(&self, verdict: &KvmVerdict) {
        let kept = Kept { boot_id: self.boot_id.clone(), verdict: verdict.clone() };
        let write = || -> io::Result<()> {
            let dir = self.path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(dir)?;
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer(&mut file, &kept)?;
            file.persist(&self.path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::warn!(%error, path = %self.path.display(), "the KVM verdict cannot be kept; it is found anew each time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn probe(script: &str) -> KvmVerdict {
        let mut helper = Command::new("sh");
        helper.args(["-c", script]);
        run_probe(helper).await
    }

    #[tokio::test]
    async fn the_childs_words_become_a_verdict() {
        assert_eq!(probe("echo ready; echo passed").await, KvmVerdict::Usable { confirmed: false });
        assert_eq!(probe("echo ready; echo broken").await, unusable("broken".into()));
        assert_eq!(probe("echo no machine").await, unusable("no machine".into()));
        assert!(matches!(probe("exit 1").await, KvmVerdict::Unusable { .. }));
        // Said before the machine was ready, so nothing ran.
        assert!(matches!(probe("echo passed").await, KvmVerdict::Unusable { .. }));
    }

    #[tokio::test]
    async fn a_run_that_never_ends_is_ended() {
        let start = std::time::Instant::now();
        let verdict = probe("echo ready; exec sleep 600").await;
        assert!(verdict.to_string().contains("did not end within 100 ms"), "{verdict}");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(verdict.accelerator(), Accelerator::Tcg);
    }

    #[test]
    fn a_verdict_holds_until_the_host_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let cache = |boot_id: &str| Cache { path: dir.path().join("kvm.json"), boot_id: boot_id.to_owned() };
        assert_eq!(cache("a").load(), None);
        for verdict in [unusable("x".into()), KvmVerdict::Usable { confirmed: true }] {
            cache("a").save(&verdict);
            assert_eq!(cache("a").load(), Some(verdict));
            assert_eq!(cache("b").load(), None);
        }
        cache("").save(&KvmVerdict::Usable { confirmed: true });
        assert_eq!(cache("").load(), None, "without a boot id nothing is believed");
        std::fs::write(dir.path().join("kvm.json"), "{").unwrap();
        assert_eq!(cache("a").load(), None);
    }
}
