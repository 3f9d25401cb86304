use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use forkyard_protocol::{
    ErrorBody, ErrorCode, ExitStatus, ProcessId, ProcessInfo, ProcessSpec, ProcessState, Resource,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use tokio::net::unix::pipe;
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::input::{Input, Sink};
use super::limits::Cgroup;
use super::ring::{Cursor, Offsets, Ring};
use super::spawn::{Channel, Started};
use super::terminal::Terminal;
use crate::reply::{internal, invalid, os_error};

/// Largest piece that is read from a process at once, in bytes: a Linux pipe's size.
const PIECE: usize = 64 * 1024;

/// How long a process waits for the reader it lost to come back before its oldest output goes.
const REATTACH_GRACE: Duration = Duration::from_secs(30);

/// How long a process whose time is up may take to end by itself after SIGTERM.
pub(super) const TERM_GRACE: Duration = Duration::from_secs(2);

/// Those who read one process's output at once. Each costs a few hundred bytes; more are no people.
const MAX_READERS: usize = 64;

/// A process, running or ended.
pub struct Process {
    pub(super) spec: ProcessSpec,
    id: ProcessId,
    command: String,
    pid: u32,
    started_at_ms: u64,
    started: Instant,
    cgroup: Option<Cgroup>,
    pub(super) input: AsyncMutex<Input>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Notify,
}

pub(super) struct State {
    pub ring: Ring,
    pub exit: Option<ExitStatus>,
    /// Whether a terminal's viewers have all stopped to read for now, so that nobody waits for them.
    pub is_left: bool,
    /// The terminal, until the process has ended.
    terminal: Option<Arc<Terminal>>,
    readers: HashMap<u64, Cursor>,
    next_reader: u64,
    /// The place of a reader that was lost, or is still to come, and until when the process waits for it.
    held: Option<(Cursor, Instant)>,
}

/// What a process writes to.
enum Outputs {
    Pipes([pipe::Receiver; 2]),
    Terminal(Arc<Terminal>),
}

impl Process {
    /// Takes charge of a process that was just started; it is awaited by a task of its own.
    pub fn new(
        id: ProcessId,
        spec: ProcessSpec,
        started: Started,
        cgroup: Option<Cgroup>,
        attach: bool,
    ) -> Result<Arc<Self>, ErrorBody> {
        let io_failed = |error: io::Error| internal(&error);
        let (sink, outputs, ring) = match started.channel {
            Channel::Pipes { stdin, outputs: [stdout, stderr] } => {
                let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose().map_err(io_failed)?;
                let outputs = [
                    pipe::Receiver::from_owned_fd(stdout).map_err(io_failed)?,
                    pipe::Receiver::from_owned_fd(stderr).map_err(io_failed)?,
                ];
                (stdin.map(Sink::Pipe), Outputs::Pipes(outputs), Ring::default())
            }
            Channel::Terminal(terminal) => {
                let terminal = Arc::new(terminal);
                (Some(Sink::Terminal(terminal.clone())), Outputs::Terminal(terminal), Ring::of_terminal())
            }
        };
        let terminal = match &outputs {
            Outputs::Terminal(terminal) => Some(terminal.clone()),
            Outputs::Pipes(_) => None,
        };
        // A terminal waits for nobody who is not there.
        let first = ring.cursor(Offsets::default()).filter(|_| attach && terminal.is_none());
        let held = first.map(|cursor| (cursor, Instant::now() + REATTACH_GRACE));
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let process = Arc::new(Self {
            spec,
            id,
            command: started.command,
            pid: started.pid,
            started_at_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            started: Instant::now(),
            cgroup,
            input: AsyncMutex::new(Input::new(sink)),
            state: Mutex::new(State {
                ring,
                exit: None,
                is_left: false,
                terminal,
                readers: HashMap::new(),
                next_reader: 0,
                held,
            }),
            changed: Notify::new(),
        });
        if let Some(millis) = process.spec.pty.as_ref().and_then(|pty| pty.hangup_after_ms) {
            tokio::spawn(process.clone().hang_up_when_left(Duration::from_millis(millis)));
        }
        tokio::spawn(process.clone().accompany(started.ended, outputs));
        Ok(process)
    }

    /// Its id.
    pub(super) fn id(&self) -> &ProcessId {
        &self.id
    }

    /// Its terminal while it runs, if it has one.
    pub(super) fn terminal(&self) -> Option<Arc<Terminal>> {
        self.lock().terminal.clone()
    }

    /// What there is to know about it.
    pub fn info(&self) -> ProcessInfo {
        let exit = self.lock().exit.clone();
        let size = self.terminal().and_then(|terminal| terminal.size().ok());
        ProcessInfo {
            id: self.id.clone(),
            pid: self.pid,
            command: self.command.clone(),
            args: self.spec.args.clone(),
            state: if exit.is_some() { ProcessState::Exited } else { ProcessState::Running },
            started_at_ms: self.started_at_ms,
            pty: self.spec.pty.as_ref().map(|pty| size.unwrap_or(pty.size())),
            exit,
        }
    }

    /// Waits for its end, at most so many milliseconds.
    pub async fn wait(&self, millis: u64) {
        let ended = self.until(|state| state.exit.is_some().then_some(()));
        // Whether it ended or not, the caller looks next.
        let _ = timeout(Duration::from_millis(millis), ended).await;
    }

    /// Sends a signal to its process group or, where it has a terminal, to the one in the foreground there; 9 to everything that
    /// it started.
    pub fn signal(&self, number: i32) -> Result<(), ErrorBody> {
        let signal = Signal::from_named_raw(number)
            .ok_or_else(|| invalid(format!("{number} is no signal; SIGTERM is 15, SIGKILL is 9")))?;
        // The lock keeps the process from being found ended, and its number reused, in between.
        let state = self.lock();
        if state.exit.is_some() {
            let message = format!("process {} has ended already", self.id);
            return Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).about(Resource::Process));
        }
        self.send_through(signal, state.terminal.as_deref())
            .map_err(|error| os_error(&error, Resource::Process, &format!("process {}", self.id)))
    }

    pub(super) fn send(&self, signal: Signal) -> io::Result<()> {
        self.send_through(signal, self.terminal().as_deref())
    }

    fn send_through(&self, signal: Signal, terminal: Option<&Terminal>) -> io::Result<()> {
        if signal == Signal::KILL {
            return self.cgroup.as_ref().map_or_else(|| self.send_to_group(signal), Cgroup::kill);
        }
        match terminal.and_then(Terminal::foreground) {
            // Where a job has just ended nobody is in the foreground, and Ctrl-C would reach nobody either.
            Some(group) => match kill_process_group(group, signal) {
                Err(Errno::SRCH) => Ok(()),
                sent => Ok(sent?),
            },
            None => self.send_to_group(signal),
        }
    }

    /// Sends a signal to its own process group.
    pub(super) fn send_to_group(&self, signal: Signal) -> io::Result<()> {
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process_group(group, signal)?)
    }

    /// A place to read from, known to the process until [`Process::leave`].
    pub(super) fn join(&self, offsets: Offsets) -> Result<(u64, Cursor), ErrorBody> {
        let mut state = self.lock();
        let cursor = state.ring.cursor(offsets).ok_or_else(|| {
            let [stdout, stderr] = state.ring.written().0;
            invalid(format!("the offsets lie beyond what was written: stdout={stdout}, stderr={stderr}"))
        })?;
        if state.readers.len() >= MAX_READERS {
            let message = format!("{MAX_READERS} read the output of process {} already", self.id);
            return Err(ErrorBody::new(ErrorCode::NoCapacity, message).retry_after_ms(1000));
        }
        let reader = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(reader, cursor);
        state.held = None;
        drop(state);
        self.changed.notify_waiters();
        Ok((reader, cursor))
    }

    /// Notes how far a reader is.
    pub(super) fn advance(&self, reader: u64, cursor: Cursor) {
        let mut state = self.lock();
        state.readers.insert(reader, cursor);
        state.is_left = false;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Takes a reader's leave; one that leaves early is waited for a while.
    pub(super) fn leave(&self, reader: u64) {
        let mut state = self.lock();
        let cursor = state.readers.remove(&reader);
        if state.readers.is_empty() && state.exit.is_none() && state.terminal.is_none() {
            state.held = cursor.map(|cursor| (cursor, Instant::now() + REATTACH_GRACE));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits until the state yields something.
    pub(super) async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look: a change in between is not missed.
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }

    async fn accompany(self: Arc<Self>, ended: oneshot::Receiver<WaitStatus>, outputs: Outputs) {
        let exited = CancellationToken::new();
        let pumps: Vec<_> = match outputs {
            Outputs::Pipes(pipes) => pipes
                .into_iter()
                .enumerate()
                .map(|(stream, pipe)| tokio::spawn(self.clone().pump(stream, pipe, exited.clone())))
                .collect(),
            Outputs::Terminal(terminal) => vec![tokio::spawn(self.clone().pump_terminal(terminal))],
        };
        let (status, timed_out) = self.await_end(ended).await;
        exited.cancel();
        if let Some(terminal) = self.terminal() {
            terminal.end();
        }
        for pump in pumps {
            // A pump that panicked has no more output to give.
            let _ = pump.await;
        }
        self.input.lock().await.close();
        let oom_killed = self.cgroup.as_ref().is_some_and(Cgroup::was_out_of_memory);
        let mut state = self.lock();
        let [stdout_bytes, stderr_bytes] = state.ring.written().0;
        state.exit = Some(ExitStatus {
            exit_code: status.and_then(WaitStatus::exit_status),
            signal: status.and_then(WaitStatus::terminating_signal),
            oom_killed,
            timed_out,
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            stdout_bytes,
            stderr_bytes,
        });
        state.terminal = None;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Awaits its end; one whose time is up is told to end, and then ended.
    async fn await_end(&self, mut ended: oneshot::Receiver<WaitStatus>) -> (Option<WaitStatus>, bool) {
        let Some(millis) = self.spec.timeout_ms else { return (ended.await.ok(), false) };
        if let Ok(status) = timeout(Duration::from_millis(millis), &mut ended).await {
            return (status.ok(), false);
        }
        // It may have ended in this moment: then there is nobody to signal, and its end is next.
        let _ = self.send(Signal::TERM);
        if let Ok(status) = timeout(TERM_GRACE, &mut ended).await {
            // What it started may have outlived it.
            let _ = self.send(Signal::KILL);
            return (status.ok(), true);
        }
        let _ = self.send(Signal::KILL);
        (ended.await.ok(), true)
    }

    /// Moves one stream into the ring until the process has ended and all that it wrote is there. Whatever its children
    /// write later is thrown away, so that they neither block nor break.
    async fn pump(self: Arc<Self>, stream: usize, pipe: pipe::Receiver, exited: CancellationToken) {
        let mut buffer = vec![0; PIECE];
        loop {
            self.room().await;
            let has_exited = exited.is_cancelled();
            // Once it has ended the kernel itself is asked: tokio's own note of what is readable may lag behind.
            let read = if has_exited {
                rustix::io::read(&pipe, &mut buffer[..]).map_err(io::Error::from)
            } else {
                pipe.try_read(&mut buffer)
            };
            match read {
                Ok(0) => return,
                Ok(count) => {
                    self.lock().ring.push(stream, Bytes::copy_from_slice(&buffer[..count]));
                    self.changed.notify_waiters();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !has_exited => {
                    tokio::select! {
                        // An error shows at the next read.
                        _ = pipe.readable() => {}
                        () = exited.cancelled() => {}
                    }
                }
                // Empty after its end: all that it wrote was in the pipe before it ended.
                Err(_) => break,
            }
        }
        tokio::spawn(async move {
            while pipe.readable().await.is_ok() {
                match pipe.try_read(&mut buffer) {
                    Ok(0) => break,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                    _ => {}
                }
            }
        });
    }

    /// Waits until the ring may take more.
    async fn room(&self) {
        loop {
            let wait_until = {
                let changed = self.until(|state| state.may_take().then_some(()));
                let held = self.lock().held.map(|(_, until)| until);
                match held {
                    None => return changed.await,
                    Some(until) => {
                        tokio::select! {
                            () = changed => return,
                            () = sleep_until(until) => until,
                        }
                    }
                }
            };
            let mut state = self.lock();
            if state.held.is_some_and(|(_, until)| until <= wait_until) {
                state.held = None;
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its cgroup, if it has one of its own.
    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }
}

impl State {
    /// Where its readers are.
    pub(super) fn readers(&self) -> impl Iterator<Item = Cursor> {
        self.readers.values().copied()
    }

    /// Whether nobody reads its output.
    pub(super) fn is_unviewed(&self) -> bool {
        self.readers.is_empty()
    }

    fn may_take(&self) -> bool {
        let held = self.held.map(|(cursor, _)| cursor);
        let mut waited_for = self.readers.values().copied().chain(held);
        waited_for.all(|cursor| self.ring.has_room(Some(cursor)))
    }
}
