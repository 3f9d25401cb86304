use std::time::Duration;

use bytes::Bytes;
pub use forkyard_protocol::{HealthCheck, ProcessInfo, RestartPolicy, RestartWhen};
use forkyard_protocol::{ProcessId, ProcessList, ProcessSpec, PtySpec};
use http::Method;
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, SandboxInfo};
use crate::error::{Error, ErrorCode, Result};
use crate::files::Files;
use crate::http::Request;
use crate::output::OutputEvent;
use crate::ports::Ports;
use crate::process::Process;

/// Bytes of each output that `run` collects at most, unless told otherwise.
const MAX_OUTPUT: usize = 128 * 1024 * 1024;

/// How much longer than its own time-out a process's answer may take.
const ANSWER_SLACK: Duration = Duration::from_secs(30);

/// A machine. Dropping this value does not end it; [`Sandbox::terminate`] does, or its idle time-out.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) client: Client,
    info: SandboxInfo,
}

/// A command to run: a program and how to run it. No shell is involved.
#[derive(Debug, Clone)]
pub struct Command {
    pub(crate) spec: ProcessSpec,
    pub(crate) stdin: Option<Bytes>,
    pub(crate) kill_on_cancel: bool,
}

/// How a command went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// The process's id.
    pub process_id: ProcessId,
    /// The exit code; 128 and the signal's number where a signal ended it, as shells have it.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
    /// The guest ran out of memory and its kernel killed the process or a child of it.
    pub oom_killed: bool,
    /// It was killed since its time was up.
    pub timed_out: bool,
    /// How long it ran, by the guest's clock.
    pub duration: Duration,
}

impl Command {
    /// A program by its name or path.
    pub fn new(program: impl Into<String>) -> Self {
        let spec = ProcessSpec { command: program.into(), ..ProcessSpec::default() };
        Self { spec, stdin: None, kill_on_cancel: true }
    }

    /// The account's shell: for [`Sandbox::pty`] alone.
    pub fn shell() -> Self {
        Self::new("")
    }

    /// Runs it on a terminal, where all that it writes is standard output, and what it is given as standard input is typed.
    #[must_use]
    pub fn terminal(mut self, terminal: PtySpec) -> Self {
        self.spec.pty = Some(terminal);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.spec.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.env.insert(name.into(), value.into());
        self
    }

    /// The folder to run in. Default: the image's, such as `/workspace`.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<String>) -> Self {
        self.spec.cwd = Some(cwd.into());
        self
    }

    /// The account to run as. Default: the image's, such as `agent`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.spec.user = Some(user.into());
        self
    }

    /// What it reads from standard input. Default: nothing.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Bytes>) -> Self {
        self.spec.stdin = true;
        self.stdin = Some(stdin.into());
        self
    }

    /// Leaves standard input open for [`crate::Handle::write_stdin`]. Default: empty.
    #[must_use]
    pub fn open_stdin(mut self) -> Self {
        self.spec.stdin = true;
        self
    }

    /// How long it may run before it and all that it started are killed. Default: for ever.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// What it is called in lists: of no other process of the machine that has not ended.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = Some(name.into());
        self
    }

    /// Has the machine start it again when it has ended: for [`Sandbox::start`] alone. Default: never.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.spec.restart = Some(policy);
        self
    }

    /// Has the machine find out again and again whether it does its work. Default: not.
    #[must_use]
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.spec.health_check = Some(check);
        self
    }

    /// Whether dropping the future of [`Sandbox::run`] or [`Sandbox::start`] kills the process. Default: true.
    #[must_use]
    pub fn kill_on_cancel(mut self, kill: bool) -> Self {
        self.kill_on_cancel = kill;
        self
    }
}

impl Sandbox {
    pub(crate) fn new(client: Client, info: SandboxInfo) -> Self {
        Self { client, info }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.info.sandbox_id.as_str()
    }

    /// Its record as it was when this value was made.
    pub fn info(&self) -> &SandboxInfo {
        &self.info
    }

    /// Its record as it is now.
    pub async fn refresh(&mut self) -> Result<&SandboxInfo> {
        self.info = self.client.get(self.id()).await?;
        Ok(&self.info)
    }

    /// Its files.
    pub fn files(&self) -> Files<'_> {
        Files { sandbox: self }
    }

    /// Its ports.
    pub fn ports(&self) -> Ports<'_> {
        Ports { sandbox: self }
    }

    /// Runs a command to its end. However often the connection is cut, it runs once, and all of its output arrives.
    pub async fn run(&self, command: Command) -> Result<CommandResult> {
        self.run_with(command, |_| {}).await
    }

    /// The same, with each piece of output shown as it comes.
    pub async fn run_with(
        &self,
        command: Command,
        mut on_output: impl FnMut(&OutputEvent),
    ) -> Result<CommandResult> {
        if command.spec.restarts() {
            let message = "a command that is run to its end is not started again; start it instead";
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let limit = command.spec.timeout_ms.map(Duration::from_millis);
        let deadline = limit.map(|limit| Instant::now() + limit + ANSWER_SLACK);
        let kill = command.kill_on_cancel;
        let mut process = self.prepare(command)?;
        let guard = KillOnDrop { process: kill.then(|| process.handle()) };
        let collect = collect(&mut process, &mut on_output);
        let result = match deadline {
            None => collect.await,
            Some(deadline) => timeout_at(deadline, collect).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorCode::Timeout, "the process did not end within its time-out"))
            }),
        };
        if result.is_ok() {
            guard.disarm();
        }
        result
    }

    /// A command that the first look at its output starts; its standard input is written while that is read. Unlike
    /// [`Sandbox::start`] it has its id before it is there, so whoever gives up meanwhile can have it killed.
    pub fn prepare(&self, command: Command) -> Result<Process> {
        Process::attach_new(self, command.spec, command.stdin)
    }

    /// Starts a command and leaves it running; its output is kept in a ring of 3 MiB until somebody reads it, over all its restarts
    /// where it has any. If the future is dropped before it answers, the process is killed, unless told otherwise: nobody knows its id.
    pub async fn start(&self, command: Command) -> Result<Process> {
        let kill = command.kill_on_cancel;
        let mut process = self.prepare(command)?;
        let guard = KillOnDrop { process: kill.then(|| process.handle()) };
        process.started().await?;
        guard.disarm();
        Ok(process)
    }

    /// A process that is there already, its output from the oldest that is kept.
    pub fn process(&self, id: &str) -> Result<Process> {
        let id = ProcessId::parse(id)
            .map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))?;
        Ok(Process::existing(self, id))
    }

    /// All processes that run or ended lately, oldest first.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        let request = Request::new(Method::GET, self.path("/processes"));
        let list: ProcessList = self.client.inner.http.call(&request, self.client.deadline()).await?;
        Ok(list.processes)
    }

    /// Ends the machine and waits for its end.
    pub async fn terminate(&self) -> Result<SandboxInfo> {
        self.client.terminate(self.id()).await
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/sandboxes/{}{rest}", self.id())
    }
}

async fn collect(process: &mut Process, on_output: &mut impl FnMut(&OutputEvent)) -> Result<CommandResult> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(event) = process.next().await? {
        on_output(&event);
        match event {
            OutputEvent::Stdout(data) => stdout.extend(data),
            OutputEvent::Stderr(data) => stderr.extend(data),
            OutputEvent::Dropped { .. } => {}
            OutputEvent::Exited(status) => {
                return Ok(CommandResult {
                    process_id: process.id().clone(),
                    exit_code: status.exit_code.unwrap_or_else(|| 128 + status.signal.unwrap_or(0)),
                    signal: status.signal,
                    stdout,
                    stderr,
                    oom_killed: status.oom_killed,
                    timed_out: status.timed_out,
                    duration: Duration::from_millis(status.duration_ms),
                });
            }
        }
        if stdout.len().max(stderr.len()) > MAX_OUTPUT {
            let message = format!(
                "the output is over {MAX_OUTPUT} bytes: start the process and read it piece by piece"
            );
            return Err(Error::new(ErrorCode::FailedPrecondition, message));
        }
    }
    Err(Error::new(ErrorCode::Internal, "the process's output ended without its end"))
}

/// Kills a process whose caller no longer waits.
struct KillOnDrop {
    process: Option<crate::process::Handle>,
}

impl KillOnDrop {
    fn disarm(mut self) {
        self.process = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill_in_background();
        }
    }
}
