//! Virtual machines, whatever runs them. Nothing above this module knows QEMU.

pub mod probe;
pub mod qemu;
pub(crate) mod socket;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{ErrorBody, ErrorCode, SandboxId};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// Software: anywhere, 8 to 16 times slower.
    Tcg,
}

impl Accelerator {
    /// The word for it, as the API and QEMU's command line have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// A machine to start.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Whose machine it is.
    pub sandbox_id: SandboxId,
    /// The machine's own directory, made by the caller with mode 0700. All that the machine writes lies in it.
    pub dir: PathBuf,
    /// The image's root file system, raw and never written to; on the same file system as `dir`.
    pub rootfs: PathBuf,
    /// The kernel, uncompressed, started through PVH; on the same file system as `dir`.
    pub vmlinux: PathBuf,
    /// The initial RAM disk that holds the agent; on the same file system as `dir`.
    pub initrd: PathBuf,
    /// Frozen disks over the root file system, the lowest first, as [`Machine::freeze`] left them.
    pub layers: Vec<PathBuf>,
    /// What it goes on from, with the processors and the memory that it had then; it boots where there is none.
    pub memory: Option<FrozenMemory>,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Which devices it has; where it goes on from frozen memory, those that it had then.
    pub devices: Devices,
}

/// A generation of the devices that machines have: part of frozen memory, so it is recorded with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Devices(u32);

impl Devices {
    /// Those of a machine that boots now.
    pub const NOW: Self = Self(1);

    /// Whether they are the first that there were, of which records say nothing.
    pub fn are_first(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is a network card among them. The first generation had none, and its guests no driver for it.
    pub fn have_network(self) -> bool {
        self.0 >= 1
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A machine's memory and devices as they stood, never written to; on the same file system as the machines.
#[derive(Debug, Clone)]
pub struct FrozenMemory {
    /// The guest's memory, page for page.
    pub ram: PathBuf,
    /// What was changed of it since, where it does not hold all.
    pub changed: Option<PathBuf>,
    /// Processors and devices.
    pub state: PathBuf,
}

/// What of a machine is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// Its disk. The caller sees to it that the guest's file systems are at rest.
    Disk,
    /// Its disk and its memory, at one moment.
    Memory,
    /// The same, and it stands still from then on: whoever asked is to end it.
    Halt,
}

/// What [`Machine::freeze`] took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// How long the guest stood still.
    pub pause: Duration,
    /// How many layers the disk has.
    pub layers: usize,
}

/// Whether the host's kernel holds machines to their memory and processors, beyond what the monitor promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limits {
    /// It does.
    Enforced,
    /// It does not; why, for people.
    Absent(String),
}

/// Why a machine could not be started, frozen or ended.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// What happened, for people.
    #[error("{0}")]
    Failed(String),
    /// The host's disk is full.
    #[error("the host's disk: {0}")]
    NoSpace(String),
}

impl VmmError {
    /// What became of work with files.
    pub fn of_files(what: &str, error: &std::io::Error) -> Self {
        let text = format!("{what}: {error}");
        if crate::host::is_full(error) { Self::NoSpace(text) } else { Self::Failed(text) }
    }
}

impl From<VmmError> for ErrorBody {
    fn from(error: VmmError) -> Self {
        let code = match error {
            VmmError::Failed(_) => ErrorCode::Internal,
            VmmError::NoSpace(_) => ErrorCode::NoSpace,
        };
        Self::new(code, error.to_string())
    }
}

/// Starts machines and finds those that an earlier server started.
pub trait Vmm: Send + Sync {
    /// Starts a machine; resolves once it runs, before its guest has booted. Where it fails, or is given up before it
    /// resolved, no process is left.
    fn start(&self, spec: MachineSpec) -> BoxFuture<'_, Result<Arc<dyn Machine>, VmmError>>;

    /// The machine of this directory, if it still runs.
    fn adopt(&self, id: SandboxId, dir: PathBuf)
    -> BoxFuture<'_, Result<Option<Arc<dyn Machine>>, VmmError>>;

    /// Ends every machine below `machines_dir` that is not among `keep`, whoever started it, and answers which.
    fn sweep<'a>(
        &'a self,
        machines_dir: &'a Path,
        keep: &'a HashSet<SandboxId>,
    ) -> BoxFuture<'a, Result<Vec<SandboxId>, VmmError>>;

    /// The virtual machine monitor's name and version.
    fn version(&self) -> String;

    /// What runs the guests' instructions.
    fn accelerator(&self) -> Accelerator;

    /// Memory in MiB that a machine takes on the host beyond its guest's.
    fn overhead_mb(&self) -> u64;

    /// Whether the host's kernel bounds what machines take.
    fn limits(&self) -> Limits {
        Limits::Absent("this kind of machine has none".to_owned())
    }
}

/// A machine that was started. It goes on when this value is dropped, and when the server ends.
pub trait Machine: Send + Sync {
    /// The process that runs it.
    fn pid(&self) -> u32;

    /// The Unix socket of the agent's channel.
    fn agent_socket(&self) -> PathBuf;

    /// The Unix socket on which its network card's frames are carried, each behind its length in four bytes, the highest first;
    /// one that is connected at a time. None for a machine without such a card.
    fn network_socket(&self) -> Option<PathBuf> {
        None
    }

    /// Plugs its network card's cable in, or pulls it out: the guest sees which.
    fn set_link(&self, up: bool) -> BoxFuture<'_, Result<(), VmmError>> {
        let _ = up;
        Box::pin(async { Ok(()) })
    }

    /// Resolves when the machine has ended, with what is known of the cause, for people.
    fn exited(&self) -> BoxFuture<'_, String>;

    /// Ends the machine at once; resolves when it has ended.
    fn kill(&self) -> BoxFuture<'_, Result<(), VmmError>>;

    /// Ends the machine in good order, with what it wrote on disk; by force once `grace` has passed. Resolves when it has
    /// ended. A monitor that knows no good order ends it at once.
    fn shutdown(&self, grace: Duration) -> BoxFuture<'_, Result<(), VmmError>> {
        let _ = grace;
        self.kill()
    }

    /// Keeps the disk of a machine that is frozen often short of layers. To be called before it is frozen: it copies what earlier
    /// freezes left behind, while the guest runs.
    fn compact(&self) -> BoxFuture<'_, Result<(), VmmError>> {
        Box::pin(async { Ok(()) })
    }

    /// Freezes the machine into files in `target`, a folder that is there, empty, and on the same file system: `base.raw`,
    /// `vmlinux`, `initrd`, `layer-0.qcow2` and so on, and with memory `ram` and `state`; of a machine that halts and has changed
    /// little, `changed` with that, and `ram` is what it went on from. They are the machine's own by hard links or copies of what
    /// it changed, so they outlive it and nobody writes to them. Not synced to disk yet. After a failure the machine runs on.
    fn freeze(&self, target: PathBuf, what: Freeze) -> BoxFuture<'_, Result<Frozen, VmmError>> {
        let _ = (target, what);
        Box::pin(async { Err(VmmError::Failed("this kind of machine cannot be frozen".to_owned())) })
    }

    /// Lets a machine run on that [`Freeze::Halt`] left standing still.
    fn go_on(&self) -> BoxFuture<'_, Result<(), VmmError>> {
        Box::pin(async { Ok(()) })
    }

    /// The last of what the guest wrote to its console, to explain a boot that failed.
    fn console_tail(&self) -> BoxFuture<'_, String>;
}

/// Part of a processor is a whole one to the guest.
pub fn whole_cpus(cpus: f64) -> u32 {
    // Validated when the machine was asked for: more than 0 and at most 64.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = cpus.ceil() as u32;
    whole.max(1)
}
