//! A machine's start: its directory is filled, its process started and handed over once it has proved itself.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use super::argv::{Argv, layer_file};
use super::cgroup::{Cgroup, Cgroups};
use super::freeze;
use super::machine::QemuMachine;
use super::process::{Account, Confinement, Process};
use crate::vmm::{Accelerator, FrozenMemory, Machine, MachineSpec, VmmError, socket};

/// The socket of the network card's frames.
pub(super) const NETWORK: &str = "network";

/// Room in a machine's files beyond the disk's own size: qcow2's tables.
const FILE_SLACK: u64 = 256 * 1024 * 1024;

/// All that a start needs, away from the event loop.
pub(super) struct Launch {
    pub spec: MachineSpec,
    pub account: Option<Account>,
    pub accelerator: Accelerator,
    pub tsc_khz: Option<u64>,
    pub overhead_mb: u64,
    pub read_only_ram: bool,
    pub cgroups: Option<Cgroups>,
}

impl Launch {
    /// Fills the machine's directory and starts its process. Blocks.
    pub(super) fn run(self) -> Result<Unproven, VmmError> {
        let (disk_bytes, [qmp, agent], network) = prepare(&self.spec, self.account)
            .map_err(|error| VmmError::of_files("the machine's directory cannot be filled", &error))?;
        let spec = self.spec;
        let frozen = spec.memory.as_ref().map(Taken::open).transpose();
        let frozen =
            frozen.map_err(|error| VmmError::Failed(format!("the frozen state cannot be read: {error}")))?;
        let args = Argv {
            sandbox_id: spec.sandbox_id.as_str(),
            accelerator: self.accelerator,
            vcpus: spec.vcpus,
            memory_mb: spec.memory_mb,
            tsc_khz: self.tsc_khz,
            layers: spec.layers.len() + 1,
            incoming: spec.memory.is_some(),
            read_only_ram: self.read_only_ram,
            qmp_fd: qmp.as_raw_fd(),
            agent_fd: agent.as_raw_fd(),
            network_fd: network.as_ref().map(UnixListener::as_raw_fd),
        }
        .build();
        let id = spec.sandbox_id.as_str();
        let cgroup = self.cgroups.map(|it| it.create(id, spec.memory_mb + self.overhead_mb, spec.vcpus));
        let cgroup = cgroup
            .transpose()
            .map_err(|error| VmmError::Failed(format!("no control group can be made: {error}")))?;
        let confinement = Confinement {
            account: self.account,
            max_file_bytes: disk_bytes + FILE_SLACK,
            cgroup: cgroup.clone(),
        };
        let mut inherited = vec![qmp.as_fd(), agent.as_fd()];
        inherited.extend(network.as_ref().map(UnixListener::as_fd));
        inherited.extend(frozen.as_ref().map(|frozen| frozen.state.as_fd()));
        match Process::spawn(&spec.dir, &args, &inherited, confinement) {
            Ok(process) => {
                Ok(Unproven { machine: Some(QemuMachine::new(spec.sandbox_id, spec.dir, process)), frozen })
            }
            Err(error) => {
                cgroup.inspect(Cgroup::remove);
                Err(error)
            }
        }
    }
}

/// A machine that nobody has been given yet. Dropped, it is killed.
pub(super) struct Unproven {
    machine: Option<Arc<QemuMachine>>,
    /// What it is to go on from.
    pub frozen: Option<Taken>,
}

/// What a machine takes in once its process runs.
pub(super) struct Taken {
    /// Processors and devices; QEMU has it open under the same number.
    pub state: File,
    /// What was changed of the memory that it maps.
    pub changed: Option<File>,
}

impl Taken {
    fn open(memory: &FrozenMemory) -> io::Result<Self> {
        let changed = memory.changed.as_ref().map(File::open).transpose()?;
        Ok(Self { state: File::open(&memory.state)?, changed })
    }
}

impl Unproven {
    pub(super) fn machine(&self) -> &QemuMachine {
        self.machine.as_deref().expect("it is taken out by `keep` alone, which consumes this value")
    }

    pub(super) fn keep(mut self) -> Arc<dyn Machine> {
        self.machine.take().expect("it is taken out here alone")
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take()
            && let Err(error) = machine.send_kill()
        {
            tracing::error!(pid = machine.pid(), %error, "a machine that nobody waited for could not be ended");
        }
    }
}

/// Fills a machine's directory; answers the disk's size in bytes and the sockets of monitor and agent and, if it has one, network card, listening.
fn prepare(
    spec: &MachineSpec,
    account: Option<Account>,
) -> io::Result<(u64, [UnixListener; 2], Option<UnixListener>)> {
    let named = |name: &str| spec.dir.join(name);
    for (source, name) in [(&spec.rootfs, "base.raw"), (&spec.vmlinux, "vmlinux"), (&spec.initrd, "initrd")] {
        link(source, &named(name))?;
    }
    for (index, layer) in spec.layers.iter().enumerate() {
        link(layer, &named(&layer_file(index)))?;
    }
    match &spec.memory {
        Some(memory) => link(&memory.ram, &named("ram"))?,
        None => freeze::make_file(&named("ram"), account)?.set_len(spec.memory_mb << 20)?,
    }
    let disk_bytes = std::fs::metadata(&spec.rootfs)?.len();
    freeze::make_layer(&named(&layer_file(spec.layers.len())), disk_bytes, account)?;
    let listeners = [bind(&spec.dir, "qmp")?, bind(&spec.dir, "agent")?];
    let network = spec.devices.have_network().then(|| bind(&spec.dir, NETWORK)).transpose()?;
    if let Some(account) = account {
        // QEMU may open what is there and make nothing: one that was taken over could otherwise put a link in the place
        // of its socket and have the server, which is root, talk to somebody else's.
        chown(&spec.dir, None, Some(account.gid))?;
        std::fs::set_permissions(&spec.dir, std::fs::Permissions::from_mode(0o710))?;
    }
    Ok((disk_bytes, listeners, network))
}

/// Links a file: the machine keeps it if its owner is removed meanwhile, and QEMU needs no other directory.
pub(super) fn link(source: &Path, target: &Path) -> io::Result<()> {
    std::fs::hard_link(source, target).map_err(|error| {
        let source = source.display();
        if error.kind() == io::ErrorKind::CrossesDevices {
            let hint =
                "images, snapshots and machines must lie on one file system: set the directories accordingly";
            return io::Error::other(format!("{source}: {hint}"));
        }
        // Its kind says whether the disk is full.
        io::Error::new(error.kind(), format!("{source}: {error}"))
    })
}

/// Listens on a socket in a directory. QEMU inherits the socket rather than making it, so that there is no moment at which
/// QEMU runs and cannot be reached yet.
fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let path = dir.join(name);
    socket::bind(&path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}
