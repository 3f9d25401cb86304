use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::FdFlags;
use rustix::process::{Gid, Pid, PidfdFlags, Resource, Rlimit, Signal, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::super::VmmError;
use super::version::PROGRAM;

/// Where QEMU's own messages go, in the machine's directory.
const LOG: &str = "qemu.log";

/// How much of the log an error shows, in bytes.
const LOG_TAIL: u64 = 2048;

/// When memory is short the host's kernel is to end a machine rather than the server (range -1000 to 1000).
const OOM_SCORE: &str = "500";

/// Whom QEMU runs as where the server is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number: the one that may open `/dev/kvm`, if there is one.
    pub gid: u32,
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
        listeners: &[&UnixListener],
        account: Option<Account>,
        max_file_bytes: u64,
    ) -> Result<Self, VmmError> {
        let failed = |error: io::Error| VmmError(format!("{PROGRAM} cannot be started: {error}"));
        let log = OpenOptions::new().create(true).append(true).open(dir.join(LOG)).map_err(failed)?;
        let working_dir = File::open(dir).map_err(failed)?;
        let inherited: Vec<i32> = listeners.iter().map(|listener| listener.as_raw_fd()).collect();
        let mut command = Command::new(PROGRAM);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        // SAFETY: only system calls that are async-signal-safe run between fork and exec, on memory made before.
        unsafe {
            command.pre_exec(move || confine(&working_dir, &inherited, account, max_file_bytes));
        }
        let child = command.spawn().map_err(failed)?;
        let pid = Pid::from_child(&child);
        std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE)
            .unwrap_or_else(|error| tracing::warn!(%error, "a machine's OOM score could not be raised"));
        Self::follow(pid, Some(child), dir)
    }

    /// Follows a process that runs already.
    pub fn adopt(pid: Pid, dir: &Path) -> Result<Self, VmmError> {
        Self::follow(pid, None, dir)
    }

    fn follow(pid: Pid, child: Option<Child>, dir: &Path) -> Result<Self, VmmError> {
        let failed = |error: io::Error| VmmError(format!("process {pid} cannot be followed: {error}"));
        let pidfd =
            rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let watched = pidfd.try_clone().map_err(failed)?;
        // SAFETY: the descriptor is owned, so it stays open, and the same one, for as long as it is registered.
        let watched = unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }
            .map_err(|error| failed(error.into()))?;
        let (sender, exited) = watch::channel(None);
        tokio::spawn(wait(watched, child, dir.join(LOG), sender));
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
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(VmmError(format!("process {} cannot be killed: {error}", self.pid))),
        }
        self.exited().await;
        Ok(())
    }
}

/// Runs in the child between fork and exec.
fn confine(dir: &File, inherited: &[i32], account: Option<Account>, max_file_bytes: u64) -> io::Result<()> {
    // Relative paths from here on: socket paths stay short, and QEMU needs no right to the folders above.
    rustix::process::fchdir(dir.as_fd())?;
    rustix::process::setsid()?;
    for fd in inherited {
        // SAFETY: the parent holds these descriptors open until the spawn is over.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
    }
    let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
    rustix::process::setrlimit(Resource::Core, limit(0))?;
    rustix::process::setrlimit(Resource::Fsize, limit(max_file_bytes))?;
    if let Some(account) = account {
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_gid(Gid::from_raw(account.gid))?;
        rustix::thread::set_thread_uid(Uid::from_raw(account.uid))?;
    }
    Ok(())
}

async fn wait(
    pidfd: AsyncFd<OwnedFd>,
    child: Option<Child>,
    log: PathBuf,
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
