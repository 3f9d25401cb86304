//! Machines under QEMU.

mod argv;
pub(crate) mod cgroup;
mod disk;
mod freeze;
mod launch;
mod machine;
mod merge;
mod process;
mod qmp;
mod ram;
mod scan;
mod tsc;
mod version;

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::SandboxId;
use futures_util::future::{BoxFuture, try_join_all};
use tokio::time::timeout;

use self::cgroup::Cgroups;
use self::launch::Launch;
use self::machine::QemuMachine;
pub(crate) use self::process::inheritable;
use self::process::{Account, Process};
use self::scan::Found;
pub use self::version::{OLDEST, PROGRAM, Version};
#[cfg(test)]
use super::Devices;
use super::{Accelerator, Limits, Machine, MachineSpec, Vmm, VmmError};

/// First of the user numbers that machines run under where the server is root: far above what distributions and
/// user-namespace ranges give out by default, and below the largest that a signed 32-bit number holds.
pub(crate) const FIRST_UID: u32 = 1_879_048_192;

/// How many of these numbers there are; two machines share one by chance only.
pub(crate) const UIDS: u32 = 1 << 24;

/// The group of frozen machines' files: every machine belongs to it and only sees what is linked into its directory.
const READERS_GID: u32 = FIRST_UID - 1;

/// What QEMU itself takes beyond the guest's memory, in MiB: 20 to 40 were measured, and 64 of translated code on top in
/// software.
const OVERHEAD_KVM_MB: u64 = 48;
const OVERHEAD_TCG_MB: u64 = 112;

/// How long frozen memory may take to be taken in: milliseconds, on a host that has nothing else to do.
const INCOMING: Duration = Duration::from_secs(30);

/// How long a machine that is taken up may take to say how it is: one that does not answer is judged by its agent.
const ADOPTION: Duration = Duration::from_secs(2);

/// QEMU, as installed on this host.
pub struct Qemu {
    version: Version,
    accelerator: Accelerator,
    tsc_khz: Option<u64>,
    cgroups: Result<Cgroups, String>,
}

impl Qemu {
    /// Finds QEMU; refuses one that is missing or too old.
    pub async fn find(accelerator: Accelerator) -> Result<Self, VmmError> {
        let version = Version::installed().await?;
        let host = tokio::task::spawn_blocking(|| (tsc::rate_khz(), Cgroups::find()));
        let (tsc_khz, cgroups) = host.await.map_err(|error| VmmError::Failed(error.to_string()))?;
        Ok(Self { version, accelerator, tsc_khz, cgroups })
    }

    async fn launch(&self, spec: MachineSpec) -> Result<Arc<dyn Machine>, VmmError> {
        let launch = Launch {
            account: account(&spec.sandbox_id, self.accelerator),
            accelerator: self.accelerator,
            tsc_khz: self.tsc_khz,
            overhead_mb: self.overhead_mb(),
            read_only_ram: self.version >= Version { major: 9, minor: 0 },
            cgroups: self.cgroups.as_ref().ok().cloned(),
            spec,
        };
        // The process comes back inside its guard: where nobody waits for it any more, it ends.
        let unproven = tokio::task::spawn_blocking(move || launch.run());
        let mut unproven = unproven.await.map_err(|error| VmmError::Failed(error.to_string()))??;
        let frozen = unproven.frozen.take();
        // Its greeting says that QEMU took its command line.
        let proven = async {
            let machine = unproven.machine();
            match frozen {
                Some(frozen) => timeout(INCOMING, machine.take_in(frozen)).await.map_err(|_| {
                    VmmError::Failed("QEMU did not take the frozen memory in in time".to_owned())
                })?,
                None => machine.qmp().await.map(drop),
            }
        };
        match proven.await {
            Ok(()) => Ok(unproven.keep()),
            Err(error) => {
                unproven.machine().kill().await?;
                Err(error)
            }
        }
    }

    async fn take_up(&self, id: SandboxId, dir: PathBuf) -> Result<Option<Arc<dyn Machine>>, VmmError> {
        let machines_dir = dir.parent().map(Path::to_owned).unwrap_or_default();
        let found = scan(&machines_dir).await?.into_iter().find(|found| found.sandbox_id == id);
        let Some(process) = found.map(|found| self.follow(&found, &machines_dir)).transpose()?.flatten()
        else {
            return Ok(None);
        };
        let machine = QemuMachine::new(id, dir, process);
        match timeout(ADOPTION, machine.guest_has_ended()).await {
            // It ended while nobody was there to see it.
            Ok(Ok(true)) => machine.kill().await.map(|()| None),
            Ok(Ok(false)) => match timeout(ADOPTION, machine.run_on()).await {
                Ok(Ok(())) => {
                    machine.tidy().await;
                    Ok(Some(machine))
                }
                // Whoever froze it ended in the middle, and it can no longer be told to run.
                _ => machine.kill().await.map(|()| None),
            },
            Ok(Err(error)) => {
                tracing::warn!(pid = machine.pid(), %error, "a machine's monitor cannot be reached");
                Ok(Some(machine))
            }
            Err(_) => {
                tracing::warn!(pid = machine.pid(), "a machine's monitor does not answer");
                Ok(Some(machine))
            }
        }
    }

    async fn end_strays(
        &self,
        machines_dir: &Path,
        keep: &HashSet<SandboxId>,
    ) -> Result<Vec<SandboxId>, VmmError> {
        let found = scan(machines_dir).await?;
        let strays = found.into_iter().filter(|found| !keep.contains(&found.sandbox_id));
        let ended = try_join_all(strays.map(|found| async move {
            if let Some(process) = self.follow(&found, machines_dir)? {
                process.kill().await?;
            }
            Ok::<_, VmmError>(found.sandbox_id)
        }))
        .await?;
        if let Ok(cgroups) = &self.cgroups {
            // Of machines that ended while no server was there to remove them.
            let left = std::fs::read_dir(machines_dir).into_iter().flatten().filter_map(Result::ok);
            let left = left.filter_map(|entry| SandboxId::parse(entry.file_name().to_str()?).ok());
            left.filter(|id| !keep.contains(id)).for_each(|id| cgroups.of(id.as_str()).remove());
        }
        Ok(ended)
    }

    fn follow(&self, found: &Found, machines_dir: &Path) -> Result<Option<Process>, VmmError> {
        let id = found.sandbox_id.as_str();
        let cgroup = self.cgroups.as_ref().ok().map(|cgroups| cgroups.of(id));
        Process::adopt(found.pid, &machines_dir.join(id), cgroup, || found.is_current(machines_dir))
    }
}

impl Vmm for Qemu {
    fn start(&self, spec: MachineSpec) -> BoxFuture<'_, Result<Arc<dyn Machine>, VmmError>> {
        Box::pin(self.launch(spec))
    }

    fn adopt(
        &self,
        id: SandboxId,
        dir: PathBuf,
    ) -> BoxFuture<'_, Result<Option<Arc<dyn Machine>>, VmmError>> {
        Box::pin(self.take_up(id, dir))
    }

    fn sweep<'a>(
        &'a self,
        machines_dir: &'a Path,
        keep: &'a HashSet<SandboxId>,
    ) -> BoxFuture<'a, Result<Vec<SandboxId>, VmmError>> {
        Box::pin(self.end_strays(machines_dir, keep))
    }

    fn version(&self) -> String {
        format!("QEMU {}", self.version)
    }

    fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    fn overhead_mb(&self) -> u64 {
        match self.accelerator {
            Accelerator::Kvm => OVERHEAD_KVM_MB,
            Accelerator::Tcg => OVERHEAD_TCG_MB,
        }
    }

    fn limits(&self) -> Limits {
        match &self.cgroups {
            Ok(_) => Limits::Enforced,
            Err(reason) => Limits::Absent(reason.clone()),
        }
    }
}

async fn scan(machines_dir: &Path) -> Result<Vec<Found>, VmmError> {
    let machines_dir = machines_dir.to_owned();
    tokio::task::spawn_blocking(move || scan::machines(&machines_dir))
        .await
        .map_err(|error| VmmError::Failed(error.to_string()))?
        .map_err(|error| VmmError::Failed(format!("running machines cannot be listed: {error}")))
}

/// Whom a machine runs as: a number of its own where the server is root, else the server's own account.
fn account(sandbox_id: &SandboxId, accelerator: Accelerator) -> Option<Account> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // FNV-1a: the same machine gets the same number after a restart, and nothing needs to be kept for it.
    let hash = sandbox_id
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let uid = FIRST_UID + hash % UIDS;
    let kvm = match accelerator {
        Accelerator::Kvm => std::fs::metadata("/dev/kvm").ok().map(|device| device.gid()),
        Accelerator::Tcg => None,
    };
    Some(Account { uid, gid: kvm.filter(|gid| *gid != 0).unwrap_or(uid), readers: READERS_GID })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spec(dir: &Path, id: &str) -> MachineSpec {
        let files = dir.join("image");
        std::fs::create_dir_all(&files).unwrap();
        let machine_dir = dir.join("machines").join(id);
        std::fs::create_dir_all(&machine_dir).unwrap();
        // A kernel of two instructions would do; QEMU itself runs without a bootable one as long as it is a 64-bit ELF
        // with a PVH note, so a real one is what the end-to-end tests boot. Here the disk is enough: no guest runs.
        std::fs::write(files.join("rootfs"), vec![0; 1024 * 1024]).unwrap();
        std::fs::write(files.join("vmlinux"), b"not a kernel").unwrap();
        std::fs::write(files.join("initrd"), b"").unwrap();
        MachineSpec {
            sandbox_id: SandboxId::parse(id).unwrap(),
            dir: machine_dir,
            rootfs: files.join("rootfs"),
            vmlinux: files.join("vmlinux"),
            initrd: files.join("initrd"),
            vcpus: 1,
            memory_mb: 128,
            layers: Vec::new(),
            memory: None,
            devices: Devices::NOW,
        }
    }

    #[tokio::test]
    async fn qemus_own_words_explain_a_start_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = Qemu::find(Accelerator::Tcg).await.unwrap();
        let start = tokio::time::timeout(Duration::from_secs(20), qemu.start(spec(dir.path(), "sbx_bad")));
        let error = start.await.expect("a start that fails says so").err().expect("it cannot start");
        assert!(error.to_string().contains("QEMU ended with exit status: 1"), "{error}");
        assert!(error.to_string().contains("kernel"), "{error}");
        assert_eq!(scan(&dir.path().join("machines")).await.unwrap(), []);
    }

    #[test]
    fn machines_of_root_have_accounts_of_their_own() {
        let account_of = |id| account(&SandboxId::parse(id).unwrap(), Accelerator::Tcg);
        if rustix::process::geteuid().is_root() {
            let (one, two) = (account_of("sbx_1").unwrap(), account_of("sbx_2").unwrap());
            assert_ne!(one.uid, two.uid);
            assert!(one.uid >= FIRST_UID && one.gid != 0);
            assert_eq!(account_of("sbx_1"), Some(one));
        } else {
            assert_eq!(account_of("sbx_1"), None);
        }
    }
}
