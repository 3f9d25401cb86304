use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forkyard_protocol::{ErrorBody, ErrorCode, PtySize, Resource};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    InputModes, OptionalActions, Winsize, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::process::{Process, State};
use super::run::TERM_GRACE;
use crate::reply::os_error;

/// Largest piece that is read from a terminal at once, in bytes.
const PIECE: usize = 64 * 1024;

/// How long a terminal waits for the quickest of its viewers before what runs on it goes on without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pseudo-terminal: the end that is a terminal's screen and keyboard.
pub struct Terminal {
    master: AsyncFd<OwnedFd>,
    /// The program's end, kept open so that the other does not end while a program has none of it open for a moment.
    slave: OwnedFd,
    /// Cancelled once the process has ended: then nobody reads what is typed.
    exited: CancellationToken,
}

impl Terminal {
    /// A new terminal, its program's end owned by this user.
    pub fn open(size: PtySize, owner: Option<u32>) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        // Not by its name: the agent's /dev/pts need not be the one that it lies in.
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        if let Some(uid) = owner {
            // Its group stays `tty`, as the mount of /dev/pts has it.
            rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None)?;
        }
        let mut modes = tcgetattr(&slave)?;
        // So that a backspace takes a whole character.
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&slave, OptionalActions::Now, &modes)?;
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned, and stays so until it is dropped with its registration.
        let master = unsafe { AsyncFd::register(master) }?;
        let terminal = Self { master, slave, exited: CancellationToken::new() };
        terminal.resize(size)?;
        Ok(terminal)
    }

    /// The program's end.
    pub fn slave(&self) -> &OwnedFd {
        &self.slave
    }

    /// Changes its size; the kernel tells the foreground (SIGWINCH).
    pub fn resize(&self, size: PtySize) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(&self.master, size)?)
    }

    /// Its size, which programs on it may have changed.
    pub fn size(&self) -> io::Result<PtySize> {
        let size = tcgetwinsize(&self.master)?;
        Ok(PtySize { rows: size.ws_row, cols: size.ws_col })
    }

    /// The process group in its foreground, which Ctrl-C goes to.
    pub fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.master).ok()
    }

    /// Types some of these bytes; answers how many.
    pub async fn write(&self, data: &[u8]) -> io::Result<usize> {
        loop {
            let mut guard = tokio::select! {
                guard = self.master.writable() => guard?,
                () = self.exited.cancelled() => return Err(io::ErrorKind::BrokenPipe.into()),
            };
            if let Ok(written) = guard.try_io(|master| Ok(rustix::io::write(master, data)?)) {
                return written;
            }
        }
    }

    /// What was written to it; nothing once its process has ended and all of it was read.
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = tokio::select! {
                biased;
                // The kernel itself is asked, which has all by then: tokio's own note of what is readable may lag behind.
                () = self.exited.cancelled() => return Ok(rustix::io::read(&self.master, buffer)?),
                guard = self.master.readable() => guard?,
            };
            match guard.try_io(|master| Ok(rustix::io::read(master, &mut *buffer)?)) {
                Ok(Err(_)) => {
                    // Hung up: its process is about to be found ended.
                    self.exited.cancelled().await;
                    return Ok(0);
                }
                Ok(read) => return read,
                Err(_) => {}
            }
        }
    }

    /// To be called once its process has ended.
    pub fn end(&self) {
        self.exited.cancel();
    }
}

impl Process {
    /// Changes its terminal's size.
    pub fn resize(&self, size: PtySize) -> Result<(), ErrorBody> {
        size.validate()?;
        let failed = |message: String| {
            Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).about(Resource::Process))
        };
        if self.spec.pty.is_none() {
            return failed(format!("process {} has no terminal; start it with 'pty' to have one", self.id()));
        }
        let Some(terminal) = self.terminal() else {
            return failed(format!("process {} has ended already", self.id()));
        };
        terminal.resize(size).map_err(|error| os_error(&error, Resource::Process, "the terminal's size"))
    }

    /// Moves what is written to the terminal into the ring, until the process has ended and all that it wrote is there.
    pub(super) async fn pump_terminal(self: Arc<Self>, terminal: Arc<Terminal>) {
        let mut buffer = vec![0; PIECE];
        // Programs that outlive the process may write without end.
        let mut left = self.lock().ring.capacity();
        while left > 0 {
            self.pace().await;
            let has_exited = terminal.exited.is_cancelled();
            match terminal.read(&mut buffer).await {
                Ok(count) if count > 0 => {
                    self.lock().ring.push(0, Bytes::copy_from_slice(&buffer[..count]));
                    self.changed.notify_waiters();
                    left -= if has_exited { count.min(left) } else { 0 };
                }
                // Empty, or hung up, which is an error to the kernel.
                _ if has_exited => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => terminal.exited.cancelled().await,
            }
        }
    }

    /// Waits until the quickest of its viewers is not far behind, but not for long: where none of them reads, what runs on the
    /// terminal goes on until one does.
    async fn pace(&self) {
        let near = self.until(|state| state.a_viewer_is_near().then_some(()));
        if timeout(PATIENCE, near).await.is_err() {
            self.lock().is_left = true;
        }
    }

    /// Hangs up once nobody has viewed the terminal for so long.
    pub(super) async fn hang_up_when_left(self: Arc<Self>, after: Duration) {
        loop {
            let is_over = self.until(|state| state.is_unviewed().then_some(state.exit.is_some())).await;
            if is_over {
                return;
            }
            let viewed = self.until(|state| (!state.is_unviewed() || state.exit.is_some()).then_some(()));
            if timeout(after, viewed).await.is_err() {
                break;
            }
        }
        // It may have ended in this moment: then there is nobody to signal.
        let _ = self.send_to_group(Signal::HUP);
        let ended = self.until(|state| state.exit.is_some().then_some(()));
        if timeout(TERM_GRACE, ended).await.is_err() {
            let _ = self.send(Signal::KILL);
        }
    }
}

impl State {
    fn a_viewer_is_near(&self) -> bool {
        self.is_left
            || self.exit.is_some()
            || self.is_unviewed()
            || self.readers().any(|cursor| self.ring.has_room(Some(cursor)))
    }
}
