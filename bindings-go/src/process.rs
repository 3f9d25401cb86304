use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use forkyard::runtime::run;
use forkyard::{Handle, OutputEvent};
use tokio::sync::Mutex;

use crate::{Answer, Blob, Error, HealthCheck, PtySize, RestartPolicy, Sandbox, value};

/// Process is a process in a machine, and a place in its output. It is safe for use by many goroutines.
#[derive(uniffi::Object)]
pub struct Process {
    pub(crate) handle: Handle,
    /// Locked while somebody reads: two readers share one place.
    reader: Arc<Mutex<Reader>>,
    exit: OnceLock<ExitStatus>,
}

struct Reader {
    process: forkyard::Process,
    /// What was read and not taken yet: a call that is cancelled leaves it to the next.
    ahead: Option<OutputEvent>,
    ended: bool,
}

impl Reader {
    async fn fill(&mut self) -> forkyard::Result<()> {
        if self.ahead.is_none() && !self.ended {
            self.ahead = self.process.next().await?;
            self.ended = self.ahead.is_none();
        }
        Ok(())
    }
}

/// A program to run and how to run it.
#[derive(Debug, uniffi::Record)]
pub struct CommandSpec {
    /// A path, or a name looked up in `PATH`.
    pub program: String,
    /// Its arguments, without the program's own name.
    pub args: Vec<String>,
    /// Variables added to the machine's environment.
    pub env: HashMap<String, String>,
    /// The folder to run in.
    pub dir: String,
    /// The account to run as.
    pub user: String,
    /// What it reads from standard input.
    pub stdin: Blob,
    /// Leaves standard input open.
    pub open_stdin: bool,
    /// How long it may run.
    pub timeout: Duration,
    /// Leaves it running where the call is cancelled.
    pub detach: bool,
    /// What it is called in lists.
    pub name: String,
    /// Whether it is started again.
    pub restart: Option<RestartPolicy>,
    /// How it is found out whether it does its work.
    pub health_check: Option<HealthCheck>,
}

impl TryFrom<CommandSpec> for forkyard::Command {
    type Error = Error;

    fn try_from(command: CommandSpec) -> Answer<Self> {
        let CommandSpec {
            program,
            args,
            env,
            dir,
            user,
            stdin,
            open_stdin,
            timeout,
            detach,
            name,
            restart,
            health_check,
        } = command;
        let mut command = Self::new(program).args(args).kill_on_cancel(!detach);
        for (name, value) in env {
            command = command.env(name, value);
        }
        if let Some(dir) = value::text(dir) {
            command = command.cwd(dir);
        }
        if let Some(user) = value::text(user) {
            command = command.user(user);
        }
        if !stdin.0.is_empty() {
            command = command.stdin(stdin.0);
        }
        if open_stdin {
            command = command.open_stdin();
        }
        if !timeout.is_zero() {
            // Less than a millisecond would be none at all.
            command = command.timeout(timeout.max(Duration::from_millis(1)));
        }
        if let Some(name) = value::text(name) {
            command = command.name(name);
        }
        if let Some(policy) = restart {
            command = command.restart(policy.try_into()?);
        }
        if let Some(check) = health_check {
            command = command.health_check(check.try_into()?);
        }
        Ok(command)
    }
}

/// Result is how a command ended and what it wrote.
#[derive(Debug, uniffi::Record)]
pub struct Result {
    /// ExitCode is 0 to 255, or -1 where a signal ended it.
    pub exit_code: i32,
    /// Signal is the number of the signal that ended it, or 0.
    pub signal: i32,
    /// Stdout is standard output as it was written.
    pub stdout: Blob,
    /// Stderr is standard error as it was written.
    pub stderr: Blob,
    /// OOMKilled says that the machine's kernel killed it, or a child of it, for want of memory.
    pub oom_killed: bool,
    /// TimedOut says that it was killed since its Timeout had passed.
    pub timed_out: bool,
    /// Duration is how long it ran, by the machine's clock.
    pub duration: Duration,
    /// ProcessID is the id by which the machine knows it.
    pub process_id: String,
}

impl From<forkyard::CommandResult> for Result {
    fn from(result: forkyard::CommandResult) -> Self {
        let forkyard::CommandResult {
            process_id,
            exit_code,
            signal,
            stdout,
            stderr,
            oom_killed,
            timed_out,
            duration,
        } = result;
        Self {
            exit_code: if signal.is_some() { -1 } else { exit_code },
            signal: signal.unwrap_or_default(),
            stdout: stdout.into(),
            stderr: stderr.into(),
            oom_killed,
            timed_out,
            duration,
            process_id: process_id.to_string(),
        }
    }
}

/// ExitStatus is how a process ended.
#[derive(Debug, Clone, uniffi::Record)]
pub struct ExitStatus {
    /// ExitCode is 0 to 255, or -1 where a signal ended it.
    pub exit_code: i32,
    /// Signal is the number of the signal that ended it, or 0.
    pub signal: i32,
    /// OOMKilled says that the machine's kernel killed it, or a child of it, for want of memory.
    pub oom_killed: bool,
    /// TimedOut says that it was killed since its Timeout had passed.
    pub timed_out: bool,
    /// Duration is how long it ran, by the machine's clock.
    pub duration: Duration,
    /// StdoutSize is how many bytes it wrote to standard output in all.
    pub stdout_size: i64,
    /// StderrSize is how many bytes it wrote to standard error in all.
    pub stderr_size: i64,
}

impl From<forkyard::ExitStatus> for ExitStatus {
    fn from(status: forkyard::ExitStatus) -> Self {
        let forkyard::ExitStatus {
            exit_code,
            signal,
            oom_killed,
            timed_out,
            duration_ms,
            stdout_bytes,
            stderr_bytes,
        } = status;
        Self {
            exit_code: exit_code.unwrap_or(-1),
            signal: signal.unwrap_or_default(),
            oom_killed,
            timed_out,
            duration: Duration::from_millis(duration_ms),
            stdout_size: value::bytes(stdout_bytes),
            stderr_size: value::bytes(stderr_bytes),
        }
    }
}

/// OutputStream is one of a process's two outputs.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// OutputPiece is what a process's output brings: data, or a loss, or its end.
#[derive(Debug, uniffi::Record)]
pub struct OutputPiece {
    /// Stream is where it was written to.
    pub stream: OutputStream,
    /// Data is what was written.
    pub data: Blob,
    /// Dropped is how many bytes were lost.
    pub dropped: i64,
    /// Exit is how the process ended.
    pub exit: Option<ExitStatus>,
}

impl OutputPiece {
    fn end(exit: ExitStatus) -> Self {
        Self { stream: OutputStream::Stdout, data: Vec::new().into(), dropped: 0, exit: Some(exit) }
    }
}

impl From<OutputEvent> for OutputPiece {
    fn from(event: OutputEvent) -> Self {
        let (mut stream, mut data, mut dropped, mut exit) = (OutputStream::Stdout, Vec::new(), 0, None);
        match event {
            OutputEvent::Stdout(bytes) => data = bytes,
            OutputEvent::Stderr(bytes) => (stream, data) = (OutputStream::Stderr, bytes),
            OutputEvent::Dropped { stdout, stderr } => dropped = value::bytes(stdout + stderr),
            OutputEvent::Exited(status) => exit = Some(status.into()),
        }
        Self { stream, data: data.into(), dropped, exit }
    }
}

/// ProcessState is where a process stands.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum ProcessState {
    /// It runs, or is to be started again.
    Running,
    /// It has ended.
    Exited,
}

impl From<forkyard::ProcessState> for ProcessState {
    fn from(state: forkyard::ProcessState) -> Self {
        match state {
            forkyard::ProcessState::Running => Self::Running,
            forkyard::ProcessState::Exited => Self::Exited,
        }
    }
}

/// ProcessInfo is a process's record.
#[derive(Debug, uniffi::Record)]
pub struct ProcessInfo {
    /// ID is its id, by which Sandbox.Process finds it.
    pub id: String,
    /// PID is the machine's kernel's number for it.
    pub pid: u32,
    /// Program is the program as it was asked for.
    pub program: String,
    /// Args are its arguments.
    pub args: Vec<String>,
    /// State is where it stands.
    pub state: ProcessState,
    /// StartedAt is when it started, by the machine's clock; the first time, where it was started again.
    pub started_at: SystemTime,
    /// Pty is the size of its terminal; nil where it has none.
    pub pty: Option<PtySize>,
    /// Exit is how it ended; nil while it runs or is to be started again.
    pub exit: Option<ExitStatus>,
    /// Name is what it is called, if anything.
    pub name: String,
    /// Restarts is how often it was started again.
    pub restarts: u32,
    /// NextStartAt is when it is started again, by the machine's clock; zero unless it waits for that.
    pub next_start_at: Option<SystemTime>,
    /// LastExit is how the run before this one ended, or the last; nil unless it was started again or is to be.
    pub last_exit: Option<ExitStatus>,
    /// Healthy says whether it does its work; nil unless its health check has found out.
    pub healthy: Option<bool>,
}

impl From<forkyard::ProcessInfo> for ProcessInfo {
    fn from(info: forkyard::ProcessInfo) -> Self {
        let forkyard::ProcessInfo {
            id,
            pid,
            command,
            args,
            state,
            started_at_ms,
            pty,
            exit,
            name,
            restarts,
            next_start_at_ms,
            last_exit,
            healthy,
        } = info;
        Self {
            id: id.to_string(),
            pid,
            program: command,
            args,
            state: state.into(),
            started_at: value::time(started_at_ms),
            pty: pty.map(Into::into),
            exit: exit.map(Into::into),
            name: name.unwrap_or_default(),
            restarts,
            next_start_at: next_start_at_ms.map(value::time),
            last_exit: last_exit.map(Into::into),
            healthy,
        }
    }
}

#[uniffi::export]
impl Sandbox {
    /// Runs a command to its end.
    pub async fn run_native(&self, command: CommandSpec) -> Answer<Result> {
        let (sandbox, command) = (self.sandbox.clone(), command.try_into()?);
        Ok(run(async move { sandbox.run(command).await }).await?.into())
    }

    /// Starts a command and leaves it running.
    pub async fn start_native(&self, command: CommandSpec) -> Answer<Arc<Process>> {
        let (sandbox, command) = (self.sandbox.clone(), command.try_into()?);
        Ok(Process::new(run(async move { sandbox.start(command).await }).await?))
    }

    /// Process finds a process that is there already, also one that a fork has of its original; its output begins with the oldest
    /// that is kept.
    pub fn process(&self, process_id: String) -> Answer<Arc<Process>> {
        Ok(Process::new(self.sandbox.process(&process_id)?))
    }

    /// Processes answers all processes that run or ended lately, oldest first.
    pub async fn processes(&self) -> Answer<Vec<ProcessInfo>> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.processes().await }).await?.into_iter().map(Into::into).collect())
    }
}

impl Process {
    pub(crate) fn new(process: forkyard::Process) -> Arc<Self> {
        let handle = process.handle();
        let reader = Arc::new(Mutex::new(Reader { process, ahead: None, ended: false }));
        Arc::new(Self { handle, reader, exit: OnceLock::new() })
    }
}

#[uniffi::export]
impl Process {
    /// ID is the id by which [Sandbox.Process] finds it again.
    pub fn id(&self) -> String {
        self.handle.id().to_string()
    }

    /// The next of its output; after its end that end again.
    pub async fn next_piece(&self) -> Answer<Option<OutputPiece>> {
        loop {
            let reader = self.reader.clone();
            run(async move { reader.lock().await.fill().await }).await?;
            let mut reader = self.reader.lock().await;
            // Nothing is there where another reader was faster.
            if let Some(event) = reader.ahead.take() {
                let piece = OutputPiece::from(event);
                piece.exit.iter().for_each(|exit| drop(self.exit.set(exit.clone())));
                return Ok(Some(piece));
            }
            if reader.ended {
                return Ok(self.exit.get().cloned().map(OutputPiece::end));
            }
        }
    }

    /// Exit is how it ended; nil until the end of its output was read, by Wait or Output.
    pub fn exit(&self) -> Option<ExitStatus> {
        self.exit.get().cloned()
    }

    /// Info answers how it stands now.
    pub async fn info(&self) -> Answer<ProcessInfo> {
        let handle = self.handle.clone();
        Ok(run(async move { handle.info().await }).await?.into())
    }

    /// Signal sends a signal to its process group or, where it has a terminal, to the one in the foreground there; 9 to everything
    /// that it started.
    pub async fn signal(&self, number: i32) -> Answer<()> {
        let handle = self.handle.clone();
        run(async move { handle.signal(number).await }).await.map_err(Error::from)
    }

    /// Kill kills it and everything that it started.
    pub async fn kill(&self) -> Answer<()> {
        self.signal(9).await
    }

    /// KillInBackground kills it without waiting for that: for code that is being cancelled itself.
    pub fn kill_in_background(&self) {
        self.handle.kill_in_background();
    }

    /// WriteStdin writes to its standard input, or types on its terminal: Enter is "\n", Ctrl-C "\x03", Ctrl-D "\x04". Without a
    /// terminal it must have been started with OpenStdin. Several programs may write to one process.
    pub async fn write_stdin(&self, data: Blob) -> Answer<()> {
        let handle = self.handle.clone();
        run(async move { handle.write_stdin(data.0).await }).await.map_err(Error::from)
    }

    /// CloseStdin closes its standard input.
    pub async fn close_stdin(&self) -> Answer<()> {
        let handle = self.handle.clone();
        run(async move { handle.close_stdin().await }).await.map_err(Error::from)
    }
}
