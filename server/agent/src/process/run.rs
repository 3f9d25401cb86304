//! A process from start to end, and from one start to the next where it has a restart policy.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forkyard_protocol::{ErrorBody, ExitStatus, ProcessSpec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitStatus, kill_process_group};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Processes;
use super::limits::Cgroup;
use super::process::{Outputs, Process};
use super::restart::{Next, Restarts, RunEnd};
use super::spawn::Started;
use super::terminal::Terminal;
use crate::config::Config;

/// Largest piece that is read from a process at once, in bytes: a Linux pipe's size.
const PIECE: usize = 64 * 1024;

/// How long a process whose time is up may take to end by itself after SIGTERM.
pub(super) const TERM_GRACE: Duration = Duration::from_secs(2);

/// What one start of a process made.
pub struct Run {
    /// The kernel's number for it.
    pub pid: u32,
    /// What holds it and all that it starts, if there are cgroups.
    pub cgroup: Option<Cgroup>,
}

/// What starts processes.
#[derive(Clone)]
pub struct Starter {
    pub processes: Arc<Processes>,
    pub config: Arc<Config>,
}

/// A run that goes on.
pub(super) struct Begun {
    pub ended: oneshot::Receiver<WaitStatus>,
    pub outputs: Outputs,
}

/// How a run went.
struct Ended {
    exit: ExitStatus,
    lasted: Duration,
    is_unhealthy: bool,
}

impl Run {
    /// Sends a signal to its process group or, where it has a terminal, to the one in the foreground there; 9 to everything that
    /// it started.
    pub fn send(&self, signal: Signal, terminal: Option<&Terminal>) -> io::Result<()> {
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
    pub fn send_to_group(&self, signal: Signal) -> io::Result<()> {
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process_group(group, signal)?)
    }
}

impl Starter {
    /// Starts a process. Blocks for as long as fork and exec take.
    pub fn start(&self, spec: &ProcessSpec) -> Result<(Arc<Run>, Started), ErrorBody> {
        self.processes.spawn(&self.config, spec)
    }

    /// Ends what is left of a run.
    pub fn discard(&self, run: Arc<Run>) {
        // Where nothing is left there is nobody to signal.
        let _ = run.send(Signal::KILL, None);
        let processes = self.processes.clone();
        tokio::spawn(async move { processes.recover_cgroup(&run).await });
    }
}

impl Process {
    /// Sees it to its end: that of its last run.
    pub(super) async fn accompany(self: Arc<Self>, mut begun: Begun, starter: Starter) {
        let mut restarts = Restarts::new(self.spec.restart.clone());
        let exit = loop {
            let ended = self.see_through(begun, &starter).await;
            match self.start_again(&mut restarts, &ended, &starter).await {
                Some(next) => begun = next,
                None => break ended.exit,
            }
        };
        self.input.lock().await.close();
        let mut state = self.lock();
        state.exit = Some(ExitStatus {
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..exit
        });
        (state.terminal, state.next_start, state.healthy) = (None, None, None);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Sees one run to its end, and all that it wrote into the ring.
    async fn see_through(self: &Arc<Self>, begun: Begun, starter: &Starter) -> Ended {
        let (exited, began, mut ended) = (CancellationToken::new(), Instant::now(), begun.ended);
        let pumps: Vec<_> = match begun.outputs {
            Outputs::Pipes(pipes) => pipes
                .into_iter()
                .enumerate()
                .map(|(stream, pipe)| tokio::spawn(self.clone().pump(stream, pipe, exited.clone())))
                .collect(),
            Outputs::Terminal(terminal) => vec![tokio::spawn(self.clone().pump_terminal(terminal))],
        };
        let unhealthy = async {
            match &self.spec.health_check {
                Some(check) => self.check_health(check, starter).await,
                None => std::future::pending().await,
            }
        };
        let (status, timed_out, is_unhealthy) = tokio::select! {
            (status, timed_out) = self.await_end(&mut ended) => (status, timed_out, false),
            () = unhealthy => (self.end(&mut ended).await, false, true),
        };
        exited.cancel();
        if let Some(terminal) = self.terminal() {
            terminal.end();
        }
        for pump in pumps {
            // A pump that panicked has no more output to give.
            let _ = pump.await;
        }
        let oom_killed = self.run().cgroup.as_ref().is_some_and(Cgroup::was_out_of_memory);
        let [stdout_bytes, stderr_bytes] = self.lock().ring.written().0;
        let lasted = began.elapsed();
        let exit = ExitStatus {
            exit_code: status.and_then(WaitStatus::exit_status),
            signal: status.and_then(WaitStatus::terminating_signal),
            oom_killed,
            timed_out,
            duration_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            stdout_bytes,
            stderr_bytes,
        };
        Ended { exit, lasted, is_unhealthy }
    }

    /// Starts the next run when it is time for it, if it ever is.
    async fn start_again(&self, restarts: &mut Restarts, ended: &Ended, starter: &Starter) -> Option<Begun> {
        let mut failed = ended.is_unhealthy || ended.exit.exit_code != Some(0);
        let mut lasted = ended.lasted;
        loop {
            let is_last = self.lock().is_told_to_end || ended.exit.timed_out;
            let Next::StartAfter(pause) = restarts.after(RunEnd { failed, is_last, lasted }) else {
                return None;
            };
            // What it left behind may hold what the next run needs.
            let _ = self.send(Signal::KILL);
            let next_start = Instant::now() + pause;
            {
                let mut state = self.lock();
                state.last_exit = Some(ended.exit.clone());
                (state.next_start, state.healthy) = (Some(next_start), None);
            }
            self.changed.notify_waiters();
            let told = self.until(|state| state.is_told_to_end.then_some(()));
            let until = self.deadline().map_or(next_start, |deadline| deadline.min(next_start));
            let is_told = timeout_at(until, told).await.is_ok();
            if is_told || until < next_start {
                return None;
            }
            match self.start_run(starter) {
                Ok(begun) => return Some(begun),
                Err(error) => {
                    let note = format!("forkyard: not started again: {}\n", error.message);
                    self.lock().ring.push(1, note.into());
                    (failed, lasted) = (true, Duration::ZERO);
                }
            }
        }
    }

    fn start_run(&self, starter: &Starter) -> Result<Begun, ErrorBody> {
        let (run, started) = tokio::task::block_in_place(|| starter.start(&self.spec))?;
        let outputs = Outputs::of(started.channel);
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.run, run);
        state.restarts += 1;
        state.next_start = None;
        if state.is_told_to_end {
            // While it was being started: whoever said so heard that it was heard.
            let _ = state.run.send(Signal::KILL, None);
        }
        drop(state);
        self.changed.notify_waiters();
        starter.discard(before);
        let (_, outputs) = outputs.map_err(|error| crate::reply::internal(&error))?;
        Ok(Begun { ended: started.ended, outputs })
    }

    /// When its time is up, if it ever is.
    fn deadline(&self) -> Option<Instant> {
        self.spec.timeout_ms.map(|millis| self.started + Duration::from_millis(millis))
    }

    /// Awaits a run's end; one whose time is up is told to end, and then ended.
    async fn await_end(&self, ended: &mut oneshot::Receiver<WaitStatus>) -> (Option<WaitStatus>, bool) {
        let Some(deadline) = self.deadline() else { return (ended.await.ok(), false) };
        match timeout_at(deadline, &mut *ended).await {
            Ok(status) => (status.ok(), false),
            Err(_) => (self.end(ended).await, true),
        }
    }

    /// Tells a run to end, and then ends it, with all that it started.
    async fn end(&self, ended: &mut oneshot::Receiver<WaitStatus>) -> Option<WaitStatus> {
        // It may have ended in this moment: then there is nobody to signal, and its end is next.
        let _ = self.send(Signal::TERM);
        if let Ok(status) = timeout(TERM_GRACE, &mut *ended).await {
            // What it started may have outlived it.
            let _ = self.send(Signal::KILL);
            return status.ok();
        }
        let _ = self.send(Signal::KILL);
        ended.await.ok()
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
        if self.spec.restarts() {
            // What it writes is its log: no reader may keep it from its work.
            return;
        }
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
}
