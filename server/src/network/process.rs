//! A gateway's process: started without anything that it does not need, found again by the next server.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use forkyard_gateway::process::Start;
use forkyard_protocol::{NetworkPolicy, SandboxId};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Gid, Pid, PidfdFlags, Resource, Rlimit, Signal, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::NetworkSettings;
use crate::vmm::qemu::cgroup::Cgroup;
use crate::vmm::qemu::{FIRST_UID, UIDS};
use crate::vmm::socket;

/// The control socket, in the machine's directory.
pub const CONTROL: &str = "gateway";

/// Where a gateway's own messages go, in the machine's directory.
const LOG: &str = "gateway.log";

/// What the log may grow to, in bytes.
const MAX_LOG: u64 = 1 << 20;

/// The subcommand, by which a gateway is found in the list of processes.
const COMMAND: &str = "gateway";

/// Memory in MiB that a gateway may take: 165 of buffers at the most that a policy can allow, and itself.
const MEMORY_MB: u64 = 224;

/// Gateways' numbers where the server is root: the range above the machines'.
const FIRST_GATEWAY_UID: u32 = FIRST_UID + UIDS;

/// When memory is short the host's kernel is to end a gateway rather than the server, and before a machine.
const OOM_SCORE: &[u8] = b"600";

/// A gateway's process, followed by pidfd, whoever started it.
pub struct Process {
    pidfd: OwnedFd,
    exited: watch::Receiver<bool>,
}

impl Process {
    /// Starts a gateway on a connected socket of its machine's. Its control socket is there when this returns. Blocks.
    pub fn start(
        settings: &NetworkSettings,
        id: &SandboxId,
        dir: &Path,
        qemu: &OwnedFd,
        policy: &NetworkPolicy,
    ) -> io::Result<Self> {
        let dir = &dir.canonicalize()?;
        let path = dir.join(CONTROL);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let control = socket::bind(&path)?;
        let log = OpenOptions::new().create(true).append(true).open(dir.join(LOG))?;
        // By descriptor: its own account need not reach the file's folder.
        let program = rustix::fs::open(&settings.program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let group = settings.cgroups.as_ref().map(|groups| groups.create(&group_name(id), MEMORY_MB, 1));
        let group = group.transpose()?;
        let entry = Entry {
            working_dir: File::open(dir)?,
            cgroup: group.as_ref().map(Cgroup::entrance).transpose()?,
            foreign: crate::vmm::qemu::inheritable()?,
            inherited: [qemu.as_raw_fd(), control.as_raw_fd()],
            account: account(id),
        };
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.arg0("forkyard").arg(COMMAND).arg(dir).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        // SAFETY: only system calls that are async-signal-safe run between fork and exec, on memory made before.
        unsafe {
            command.pre_exec(move || entry.confine());
        }
        let mut child = command.spawn()?;
        let start = Start {
            qemu: qemu.as_raw_fd(),
            control: control.as_raw_fd(),
            policy: policy.clone(),
            operator: settings.operator.clone(),
            dns: settings.dns.clone(),
        };
        let written = (|| {
            let mut line = serde_json::to_vec(&start)?;
            line.push(b'\n');
            child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?.write_all(&line)?;
            rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::NONBLOCK)
                .map_err(io::Error::from)
        })();
        match written {
            Ok(pidfd) => Self::follow(pidfd, Some(child), group),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                group.inspect(Cgroup::remove);
                Err(error)
            }
        }
    }

    /// The gateway of a machine that runs already, if there is one. Blocks.
    pub fn find(settings: &NetworkSettings, id: &SandboxId, dir: &Path) -> io::Result<Option<Self>> {
        let dir = &dir.canonicalize()?;
        for (pid, machine_dir) in gateways()? {
            if Path::new(&machine_dir) != dir {
                continue;
            }
            let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
                Ok(pidfd) => pidfd,
                Err(rustix::io::Errno::SRCH) => continue,
                Err(error) => return Err(error.into()),
            };
            // A number may have gone to another process since it was read.
            if machine_dir_of(pid).as_deref() == Some(&machine_dir) {
                let group = settings.cgroups.as_ref().map(|groups| groups.of(&group_name(id)));
                return Self::follow(pidfd, None, group).map(Some);
            }
        }
        Ok(None)
    }

    fn follow(pidfd: OwnedFd, child: Option<Child>, group: Option<Cgroup>) -> io::Result<Self> {
        let watched = pidfd.try_clone()?;
        // SAFETY: the descriptor is owned, so it stays open, and the same one, for as long as it is registered.
        let watched = unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }?;
        let (sender, exited) = watch::channel(false);
        tokio::spawn(async move {
            if let Err(error) = watched.readable().await {
                tracing::warn!(%error, "a gateway can no longer be followed");
            }
            // It has ended: nobody waits here.
            if let Some(Err(error)) = child.map(|mut child| child.wait()) {
                tracing::warn!(%error, "a gateway's status could not be read");
            }
            group.inspect(Cgroup::remove);
            sender.send_replace(true);
        });
        Ok(Self { pidfd, exited })
    }

    /// Resolves when it has ended.
    pub async fn exited(&self) {
        // The sender goes only after it has said so.
        drop(self.exited.clone().wait_for(|exited| *exited).await);
    }

    /// Ends it at once and waits for its end.
    pub async fn kill(&self) {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => self.exited().await,
            Err(error) => tracing::error!(%error, "a gateway cannot be killed"),
        }
    }
}

/// Ends every gateway of a machine below this folder that is not among `keep`, whoever started it. Blocks.
pub fn sweep(settings: &NetworkSettings, machines_dir: &Path, keep: &[SandboxId]) -> io::Result<()> {
    let machines_dir = &machines_dir.canonicalize()?;
    for (pid, dir) in gateways()? {
        let dir = Path::new(&dir);
        let id = dir.file_name().and_then(|name| SandboxId::parse(name.to_str()?).ok());
        let Some(id) = id.filter(|_| dir.parent() == Some(machines_dir)) else { continue };
        if keep.contains(&id) {
            continue;
        }
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) if machine_dir_of(pid).as_deref().map(Path::new) == Some(dir) => {
                tracing::warn!(sandbox = %id, "ended a gateway that nobody owns");
                match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let Some(groups) = &settings.cgroups else { return Ok(()) };
    let left = std::fs::read_dir(machines_dir).into_iter().flatten().filter_map(Result::ok);
    let left = left.filter_map(|entry| SandboxId::parse(entry.file_name().to_str()?).ok());
    left.filter(|id| !keep.contains(id)).for_each(|id| groups.of(&group_name(&id)).remove());
    Ok(())
}

/// All gateways, with the directory of the machine that each is for: by their command lines, since what is confined hides its
/// working directory from all but root.
fn gateways() -> io::Result<Vec<(Pid, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
        // A process may end while it is looked at.
        found.extend(pid.and_then(|pid| Some((pid, machine_dir_of(pid)?))));
    }
    Ok(found)
}

fn machine_dir_of(pid: Pid) -> Option<String> {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    let words: Vec<&str> = std::str::from_utf8(&line).ok()?.split('\0').collect();
    match words[..] {
        ["forkyard", COMMAND, dir, ""] => Some(dir.to_owned()),
        _ => None,
    }
}

fn group_name(id: &SandboxId) -> String {
    format!("{id}.gateway")
}

/// Whom a gateway runs as where the server is root: a number that its machine does not have.
fn account(id: &SandboxId) -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // FNV-1a, as for machines.
    let bytes = id.as_str().bytes();
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    Some(FIRST_GATEWAY_UID + hash % UIDS)
}

/// What the child does between fork and exec.
struct Entry {
    working_dir: File,
    cgroup: Option<File>,
    foreign: Vec<RawFd>,
    inherited: [RawFd; 2],
    account: Option<u32>,
}

impl Entry {
    /// Only system calls that are async-signal-safe.
    fn confine(&self) -> io::Result<()> {
        rustix::process::fchdir(self.working_dir.as_fd())?;
        rustix::process::setsid()?;
        let score =
            rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(score, OOM_SCORE)?;
        if let Some(entrance) = &self.cgroup {
            rustix::io::write(entrance, b"0")?;
        }
        for (fds, flags) in [(&self.foreign[..], FdFlags::CLOEXEC), (&self.inherited[..], FdFlags::empty())] {
            for fd in fds {
                // SAFETY: the child's descriptors are a copy that nobody else changes; one that was closed before the
                // fork answers EBADF.
                let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
                match rustix::io::fcntl_setfd(fd, flags) {
                    Ok(()) | Err(rustix::io::Errno::BADF) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for (resource, most) in [(Resource::Core, 0), (Resource::Fsize, MAX_LOG)] {
            rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        if let Some(number) = self.account {
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_gid(Gid::from_raw(number))?;
            rustix::thread::set_thread_uid(Uid::from_raw(number))?;
        }
        Ok(())
    }
}
