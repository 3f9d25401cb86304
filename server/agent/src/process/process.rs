use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forkyard_protocol::{
    ErrorBody, ErrorCode, ExitStatus, ProcessId, ProcessInfo, ProcessSpec, ProcessState, Resource,
};
use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{Instant, timeout};

use super::input::{Input, Sink};
use super::ring::{Cursor, Offsets, Ring};
use super::run::{Begun, Run, Starter};
use super::spawn::{Channel, Started};
use super::terminal::Terminal;
use crate::clock::now_ms;
use crate::reply::{internal, invalid, os_error};

/// How long a process waits for the reader it lost to come back before its oldest output goes.
const REATTACH_GRACE: Duration = Duration::from_secs(30);

/// Those who read one process's output at once. Each costs a few hundred bytes; more are no people.
const MAX_READERS: usize = 64;

/// A process, running or ended.
pub struct Process {
    pub(super) spec: ProcessSpec,
    id: ProcessId,
    command: String,
    started_at_ms: u64,
    pub(super) started: Instant,
    pub(super) input: AsyncMutex<Input>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Notify,
}

pub(super) struct State {
    pub ring: Ring,
    pub exit: Option<ExitStatus>,
    /// The run that goes on, or went last.
    pub run: Arc<Run>,
    /// How often it was started again.
    pub restarts: u32,
    /// When it is to be started again, while it waits for that.
    pub next_start: Option<Instant>,
    /// How the run before ended.
    pub last_exit: Option<ExitStatus>,
    /// What its health check found.
    pub healthy: Option<bool>,
    /// Whether it was told to end, and so is not started again.
    pub is_told_to_end: bool,
    /// Whether a terminal's viewers have all stopped to read for now, so that nobody waits for them.
    pub is_left: bool,
    /// The terminal, until the process has ended.
    pub(super) terminal: Option<Arc<Terminal>>,
    readers: HashMap<u64, Cursor>,
    next_reader: u64,
    /// The place of a reader that was lost, or is still to come, and until when the process waits for it.
    pub(super) held: Option<(Cursor, Instant)>,
}

/// What a process writes to.
pub(super) enum Outputs {
    Pipes([pipe::Receiver; 2]),
    Terminal(Arc<Terminal>),
}

impl Process {
    /// Takes charge of a process that was just started; it is awaited by a task of its own.
    pub fn new(
        id: ProcessId,
        spec: ProcessSpec,
        (run, started): (Arc<Run>, Started),
        attach: bool,
        starter: Starter,
    ) -> Result<Arc<Self>, ErrorBody> {
        let (sink, outputs) = Outputs::of(started.channel).map_err(|error| internal(&error))?;
        let ring = match &outputs {
            Outputs::Pipes(_) => Ring::default(),
            Outputs::Terminal(_) => Ring::of_terminal(),
        };
        let terminal = match &outputs {
            Outputs::Terminal(terminal) => Some(terminal.clone()),
            Outputs::Pipes(_) => None,
        };
        // A terminal waits for nobody who is not there.
        let first = ring.cursor(Offsets::default()).filter(|_| attach && terminal.is_none());
        let held = first.map(|cursor| (cursor, Instant::now() + REATTACH_GRACE));
        let process = Arc::new(Self {
            spec,
            id,
            command: started.command,
            started_at_ms: now_ms(),
            started: Instant::now(),
            input: AsyncMutex::new(Input::new(sink)),
            state: Mutex::new(State {
                ring,
                exit: None,
                run,
                restarts: 0,
                next_start: None,
                last_exit: None,
                healthy: None,
                is_told_to_end: false,
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
        tokio::spawn(process.clone().accompany(Begun { ended: started.ended, outputs }, starter));
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
        let size = self.terminal().and_then(|terminal| terminal.size().ok());
        let state = self.lock();
        let exit = state.exit.clone();
        // By the clock as it is now: a fork's, and that of a machine that was suspended, has been put forward.
        let pause = state.next_start.map(|at| at.saturating_duration_since(Instant::now()));
        let pause = pause.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        ProcessInfo {
            id: self.id.clone(),
            pid: state.run.pid,
            command: self.command.clone(),
            args: self.spec.args.clone(),
            state: if exit.is_some() { ProcessState::Exited } else { ProcessState::Running },
            started_at_ms: self.started_at_ms,
            pty: self.spec.pty.as_ref().map(|pty| size.unwrap_or(pty.size())),
            exit,
            name: self.spec.name.clone(),
            restarts: state.restarts,
            next_start_at_ms: pause.map(|pause| now_ms().saturating_add(pause)),
            last_exit: state.last_exit.clone(),
            healthy: state.healthy,
        }
    }

    /// Waits for its end, at most so many milliseconds.
    pub async fn wait(&self, millis: u64) {
        let ended = self.until(|state| state.exit.is_some().then_some(()));
        // Whether it ended or not, the caller looks next.
        let _ = timeout(Duration::from_millis(millis), ended).await;
    }

    /// Sends a signal to its process group or, where it has a terminal, to the one in the foreground there; 9 to everything that
    /// it started. What tells a process to end also keeps it from being started again.
    pub fn signal(&self, number: i32) -> Result<(), ErrorBody> {
        let signal = Signal::from_named_raw(number)
            .ok_or_else(|| invalid(format!("{number} is no signal; SIGTERM is 15, SIGKILL is 9")))?;
        let refused = |message: String| {
            Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).about(Resource::Process))
        };
        // The lock keeps the process from being found ended, and its number reused, in between.
        let mut state = self.lock();
        if state.exit.is_some() {
            return refused(format!("process {} has ended already", self.id));
        }
        if [Signal::TERM, Signal::INT, Signal::KILL].contains(&signal) {
            state.is_told_to_end = true;
            self.changed.notify_waiters();
            if state.next_start.is_some() {
                return Ok(());
            }
        }
        if state.next_start.is_some() {
            return refused(format!("process {} waits for its next start", self.id));
        }
        state
            .run
            .send(signal, state.terminal.as_deref())
            .map_err(|error| os_error(&error, Resource::Process, &format!("process {}", self.id)))
    }

    pub(super) fn send(&self, signal: Signal) -> io::Result<()> {
        let run = self.run();
        run.send(signal, self.terminal().as_deref())
    }

    /// Sends a signal to its own process group.
    pub(super) fn send_to_group(&self, signal: Signal) -> io::Result<()> {
        self.run().send_to_group(signal)
    }

    /// The run that goes on, or went last.
    pub(super) fn run(&self) -> Arc<Run> {
        self.lock().run.clone()
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

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outputs {
    /// What is to be read of a process, and what may be written to it.
    pub(super) fn of(channel: Channel) -> io::Result<(Option<Sink>, Self)> {
        Ok(match channel {
            Channel::Pipes { stdin, outputs: [stdout, stderr] } => {
                let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose()?;
                let outputs =
                    [pipe::Receiver::from_owned_fd(stdout)?, pipe::Receiver::from_owned_fd(stderr)?];
                (stdin.map(Sink::Pipe), Self::Pipes(outputs))
            }
            Channel::Terminal(terminal) => {
                let terminal = Arc::new(terminal);
                (Some(Sink::Terminal(terminal.clone())), Self::Terminal(terminal))
            }
        })
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

    pub(super) fn may_take(&self) -> bool {
        let held = self.held.map(|(cursor, _)| cursor);
        let mut waited_for = self.readers.values().copied().chain(held);
        waited_for.all(|cursor| self.ring.has_room(Some(cursor)))
    }
}
