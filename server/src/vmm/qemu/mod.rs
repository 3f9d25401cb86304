//! Machines under QEMU.

mod argv;
mod disk;
mod machine;
mod process;
mod qmp;
mod scan;
mod tsc;
mod version;

use std::collections::HashSet;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forkyard_protocol::SandboxId;
use futures_util::future::{BoxFuture, try_join_all};

use self::argv::Argv;
use self::disk::empty_qcow2;
use self::machine::QemuMachine;
use self::process::{Account, Process};
pub use self::version::{OLDEST, PROGRAM, Version};
use super::{Accelerator, Machine, MachineSpec, Vmm, VmmError};

/// First of the user numbers that machines run under where the server is root: far above what distributions and
/// user-namespace ranges give out by default, and below the largest that a signed 32-bit number holds.
const FIRST_UID: u32 = 1_879_048_192;

/// How many of these numbers there are; two machines share one by chance only.
const UIDS: u32 = 1 << 24;

/// What QEMU itself takes beyond the guest's memory, in MiB: 20 to 40 were measured, and 64 of translated code on top in
/// software.
const OVERHEAD_KVM_MB: u64 = 48;
const OVERHEAD_TCG_MB: u64 = 112;

/// Room in a machine's files beyond the disk's own size: qcow2's tables.
const FILE_SLACK: u64 = 256 * 1024 * 1024;

/// QEMU, as installed on this host.
pub struct Qemu {
    version: Version,
    accelerator: Accelerator,
    tsc_khz: Option<u64>,
}

impl Qemu {
    /// Finds QEMU; refuses one that is missing or too old.
    pub async fn find(accelerator: Accelerator) -> Result<Self, VmmError> {
        let version = Version::installed().await?;
        let tsc_khz = tokio::task::spawn_blocking(tsc::rate_khz).await.ok().flatten();
        Ok(Self { version, accelerator, tsc_khz })
    }

    async fn launch(&self, spec: MachineSpec) -> Result<Arc<dyn Machine>, VmmError> {
        let account = account(&spec.sandbox_id);
        let prepared = spec.clone();
        let (disk_bytes, [qmp, agent]) = tokio::task::spawn_blocking(move || prepare(&prepared, account))
            .await
            .map_err(|error| VmmError(error.to_string()))?
            .map_err(|error| VmmError(format!("the machine's directory cannot be filled: {error}")))?;
        let args = Argv {
            sandbox_id: spec.sandbox_id.as_str(),
            accelerator: self.accelerator,
            vcpus: spec.vcpus,
            memory_mb: spec.memory_mb,
            tsc_khz: self.tsc_khz,
            qmp_fd: qmp.as_raw_fd(),
            agent_fd: agent.as_raw_fd(),
        }
        .build();
        let process = Process::spawn(&spec.dir, &args, &[&qmp, &agent], account, disk_bytes + FILE_SLACK)?;
        let machine = QemuMachine::new(spec.sandbox_id, spec.dir, process);
        // Its greeting says that QEMU took its command line.
        machine.qmp().await?;
        Ok(machine)
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
        Box::pin(async move {
            let machines_dir = dir.parent().map(Path::to_owned).unwrap_or_default();
            let Some(found) = scan(&machines_dir).await?.into_iter().find(|found| found.sandbox_id == id)
            else {
                return Ok(None);
            };
            let process = Process::adopt(found.pid, &dir)?;
            Ok(Some(QemuMachine::new(id, dir, process) as Arc<dyn Machine>))
        })
    }

    fn sweep<'a>(
        &'a self,
        machines_dir: &'a Path,
        keep: &'a HashSet<SandboxId>,
    ) -> BoxFuture<'a, Result<Vec<SandboxId>, VmmError>> {
        Box::pin(async move {
            let strays =
                scan(machines_dir).await?.into_iter().filter(|found| !keep.contains(&found.sandbox_id));
            try_join_all(strays.map(|found| async move {
                Process::adopt(found.pid, &machines_dir.join(found.sandbox_id.as_str()))?.kill().await?;
                Ok(found.sandbox_id)
            }))
            .await
        })
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
}

async fn scan(machines_dir: &Path) -> Result<Vec<scan::Found>, VmmError> {
    let machines_dir = machines_dir.to_owned();
    tokio::task::spawn_blocking(move || scan::machines(&machines_dir))
        .await
        .map_err(|error| VmmError(error.to_string()))?
        .map_err(|error| VmmError(format!("running machines cannot be listed: {error}")))
}

/// Whom a machine runs as: a number of its own where the server is root, else the server's own account.
fn account(sandbox_id: &SandboxId) -> Option<Account> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // FNV-1a: the same machine gets the same number after a restart, and nothing needs to be kept for it.
    let hash = sandbox_id
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let uid = FIRST_UID + hash % UIDS;
    let gid =
        std::fs::metadata("/dev/kvm").ok().map(|device| device.gid()).filter(|gid| *gid != 0).unwrap_or(uid);
    Some(Account { uid, gid })
}

/// Fills a machine's directory; answers the disk's size in bytes and the sockets of monitor and agent, listening.
fn prepare(spec: &MachineSpec, account: Option<Account>) -> io::Result<(u64, [UnixListener; 2])> {
    for (source, name) in [(&spec.rootfs, "base.raw"), (&spec.vmlinux, "vmlinux"), (&spec.initrd, "initrd")] {
        // Links: the machine keeps its files if the image is removed meanwhile, and QEMU needs no other directory.
        std::fs::hard_link(source, spec.dir.join(name)).map_err(|error| {
            let source = source.display();
            if error.kind() == io::ErrorKind::CrossesDevices {
                let hint =
                    "images and machines must lie on one file system: set the image directory accordingly";
                return io::Error::other(format!("{source}: {hint}"));
            }
            io::Error::other(format!("{source}: {error}"))
        })?;
    }
    let disk_bytes = std::fs::metadata(&spec.rootfs)?.len();
    let overlay = spec.dir.join("overlay.qcow2");
    std::fs::write(&overlay, empty_qcow2(disk_bytes))?;
    let listeners = [bind(&spec.dir, "qmp")?, bind(&spec.dir, "agent")?];
    if let Some(account) = account {
        for path in [&spec.dir, &overlay] {
            chown(path, Some(account.uid), Some(account.gid))?;
        }
    }
    Ok((disk_bytes, listeners))
}

/// Listens on a socket in a directory. QEMU inherits the socket rather than making it, so that there is no moment at which
/// QEMU runs and cannot be reached yet.
fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let path = dir.join(name);
    UnixListener::bind(&path).map_err(|error| {
        io::Error::other(format!(
            "{} (at most 107 bytes; choose a shorter data directory): {error}",
            path.display()
        ))
    })
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
        }
    }

    #[tokio::test]
    async fn qemus_own_words_explain_a_start_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = Qemu::find(Accelerator::Tcg).await.unwrap();
        let start = tokio::time::timeout(Duration::from_secs(20), qemu.start(spec(dir.path(), "sbx_bad")));
        let error = start.await.expect("a start that fails says so").err().expect("it cannot start");
        assert!(error.0.contains("QEMU ended with exit status: 1"), "{error}");
        assert!(error.0.contains("kernel"), "{error}");
        assert_eq!(scan(&dir.path().join("machines")).await.unwrap(), []);
    }

    #[test]
    fn machines_of_root_have_accounts_of_their_own() {
        let account_of = |id| account(&SandboxId::parse(id).unwrap());
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
