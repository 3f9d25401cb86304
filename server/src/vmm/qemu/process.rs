use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::FdFlags;
use rustix::process::{Gid, Pid, PidfdFlags, Resource, Rlimit, Signal, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::super::VmmError;
use super::cgroup::Cgroup;
use super::version::PROGRAM;

/// Where QEMU's own messages go, in the machine's directory.
const LOG: &str = "qemu.log";

/// How much of the log an error shows, in bytes.
const LOG_TAIL: u64 = 2048;

/// When memory is short the host's kernel is to end a machine rather than the server (range -1000 to 1000).
const OOM_SCORE: &str = "500";

/// Descriptors that a machine may open: it needs a few dozen.
const MAX_DESCRIPTORS: u64 = 1024;

/// Whom QEMU runs as where the server is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number: the one that may open `/dev/kvm`, if there is one.
    pub gid: u32,
    /// Another group that it belongs to: the one that reads frozen machines.
    pub readers: u32,
}

/// What a process is held to.
pub struct Confinement {
    /// Whom it runs as; the server's own account where it is not given.
    pub account: Option<Account>,
    /// The size in bytes that its files may grow to.
    pub max_file_bytes: u64,
    /// Its control group, removed when the process has ended.
    pub cgroup: Option<Cgroup>,
}

/// A process of QEMU's, followed by pidfd, so that one that an earlier server started is followed like a child.
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    exited: watch::Receiver<Option<String>>,
}

impl Process {
    /// Starts QEMU in a machine's directory, in a session of its own, so that it outlives the server.
    pub fn spawn(
        dir: &Path,
        args: &[std::ffi::OsString],
        inherited: &[BorrowedFd<'_>],
        confinement: Confinement,
    ) -> Result<Self, VmmError> {
        let failed = |error: io::Error| VmmError::Failed(format!("{PROGRAM} cannot be started: {error}"));
        let log = OpenOptions::new().create(true).append(true).open(dir.join(LOG)).map_err(failed)?;
        let Confinement { account, max_file_bytes, cgroup } = confinement;
        let entry = Entry {
            working_dir: File::open(dir).map_err(failed)?,
            cgroup: cgroup.as_ref().map(Cgroup::entrance).transpose().map_err(failed)?,
            foreign: inheritable().map_err(failed)?,
            inherited: inherited.iter().map(AsRawFd::as_raw_fd).collect(),
            account,
            max_file_bytes,
        };
        let mut command = Command::new(PROGRAM);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        // SAFETY: only system calls that are async-signal-safe run between fork and exec, on memory made before.
        unsafe {
            command.pre_exec(move || entry.confine());
        }
        let child = command.spawn().map_err(failed)?;
        let pid = Pid::from_child(&child);
        std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE)
            .unwrap_or_else(|error| tracing::warn!(%error, "a machine's OOM score could not be raised"));
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
            .map_err(|error| VmmError::Failed(format!("process {pid} cannot be followed: {error}")))?;
        Self::follow(pid, pidfd, Some(child), dir, cgroup)
    }

    /// Follows a process that runs already, unless it has ended. A number may have gone to another process since it was
    /// read, so `is_it` looks at the process once a descriptor holds on to it.
    pub fn adopt(
        pid: Pid,
        dir: &Path,
        cgroup: Option<Cgroup>,
        is_it: impl FnOnce() -> bool,
    ) -> Result<Option<Self>, VmmError> {
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(VmmError::Failed(format!("process {pid} cannot be followed: {error}"))),
        };
        if is_it() { Self::follow(pid, pidfd, None, dir, cgroup).map(Some) } else { Ok(None) }
    }

    fn follow(
        pid: Pid,
        pidfd: OwnedFd,
        child: Option<Child>,
        dir: &Path,
        cgroup: Option<Cgroup>,
    ) -> Result<Self, VmmError> {
        let failed =
            |error: io::Error| VmmError::Failed(format!("process {pid} cannot be followed: {error}"));
        let watched = pidfd.try_clone().map_err(failed)?;
        // SAFETY: the descriptor is owned, so it stays open, and the same one, for as long as it is registered.
        let watched = unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }
            .map_err(|error| failed(error.into()))?;
        let (sender, exited) = watch::channel(None);
        tokio::spawn(wait(watched, child, dir.join(LOG), cgroup, sender));
        Ok(Self { pid, pidfd, exited })
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Resolves when it has ended, with the cause as far as it is known.
    pub async fn exited(&self) -> String {
        let mut exited = self.exited.clone();
        match exited.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the process can no longer be followed".to_owned(),
        }
    }

    /// Ends it at once and waits for its end.
    pub async fn kill(&self) -> Result<(), VmmError> {
        self.send_kill()?;
        self.exited().await;
        Ok(())
    }

    /// Ends it at once and does not wait.
    pub fn send_kill(&self) -> Result<(), VmmError> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(VmmError::Failed(format!("process {} cannot be killed: {error}", self.pid))),
        }
    }
}

/// Descriptors of this process that its children would inherit beyond the standard three. This program makes none; who
/// started it may have left some open, such as locks, which a machine that outlives the server must not keep.
pub(crate) fn inheritable() -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|text| text.parse().ok()) else { continue };
        if number <= 2 {
            continue;
        }
        // SAFETY: only the flags of whatever has this number now are read; one that was closed meanwhile answers EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            found.push(number);
        }
    }
    Ok(found)
}

/// What the child does between fork and exec.
struct Entry {
    working_dir: File,
    cgroup: Option<File>,
    foreign: Vec<RawFd>,
    inherited: Vec<RawFd>,
    account: Option<Account>,
    max_file_bytes: u64,
}

impl Entry {
    /// Only system calls that are async-signal-safe.
    fn confine(&self) -> io::Result<()> {
        // Relative paths from here on: QEMU needs no right to the folders above.
        rustix::process::fchdir(self.working_dir.as_fd())?;
        rustix::process::setsid()?;
        if let Some(entrance) = &self.cgroup {
            rustix::io::write(entrance, b"0")?;
        }
        for (fds, flags) in [(&self.foreign, FdFlags::CLOEXEC), (&self.inherited, FdFlags::empty())] {
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
        for (resource, most) in
            [(Resource::Core, 0), (Resource::Fsize, self.max_file_bytes), (Resource::Nofile, MAX_DESCRIPTORS)]
        {
            rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        if let Some(account) = self.account {
            rustix::thread::set_thread_groups(&[Gid::from_raw(account.readers)])?;
            rustix::thread::set_thread_gid(Gid::from_raw(account.gid))?;
            rustix::thread::set_thread_uid(Uid::from_raw(account.uid))?;
        }
        Ok(())
    }
}

async fn wait(
    pidfd: AsyncFd<OwnedFd>,
    child: Option<Child>,
    log: PathBuf,
    cgroup: Option<Cgroup>,
    exited: watch::Sender<Option<String>>,
) {
    let outcome = match pidfd.readable().await {
        Ok(_) => match child.map(|mut child| child.wait()) {
            Some(Ok(status)) => format!("QEMU ended with {status}"),
            Some(Err(error)) => format!("QEMU ended; its status could not be read: {error}"),
            None => "QEMU ended".to_owned(),
        },
        Err(error) => format!("QEMU can no longer be followed: {error}"),
    };
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    let tail = tail(&log).unwrap_or_default();
    let reason = if tail.is_empty() { outcome } else { format!("{outcome}: {tail}") };
    exited.send_replace(Some(reason));
}

/// The end of a log. Less than a page is read, so the event loop may do it.
fn tail(path: &Path) -> io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
