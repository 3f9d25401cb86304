use std::collections::BTreeMap;

use forkyard::Command;
use forkyard::Error;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use super::mirror;
use super::pty::PtySize;
use crate::value::{millis, number};

/// Where a process stands.
#[napi(string_enum = "snake_case")]
pub enum ProcessState {
    Running,
    Exited,
}

mirror!(ProcessState = forkyard::ProcessState { Running, Exited });

/// How a process ended: by itself with a code, or by a signal.
#[napi(object, object_from_js = false)]
pub struct ExitStatus {
    /// 0 to 255; absent if a signal ended it.
    pub exit_code: Option<i32>,
    /// The number of the signal that ended it; absent if it exited by itself.
    pub signal: Option<i32>,
    /// The machine's kernel killed it, or a child of it, for want of memory.
    pub oom_killed: bool,
    /// It was killed since its `timeoutMs` had passed.
    pub timed_out: bool,
    /// Wall time from start to end in milliseconds, by the machine's clock.
    pub duration_ms: f64,
    /// Bytes written to standard output in all.
    pub stdout_size: f64,
    /// Bytes written to standard error in all.
    pub stderr_size: f64,
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
            exit_code,
            signal,
            oom_killed,
            timed_out,
            duration_ms: number(duration_ms),
            stdout_size: number(stdout_bytes),
            stderr_size: number(stderr_bytes),
        }
    }
}

/// A process, running or ended.
#[napi(object, object_from_js = false)]
pub struct ProcessInfo {
    /// Its id, by which it can be attached to.
    pub id: String,
    /// The machine's kernel's number for it.
    pub pid: u32,
    /// The program as it was asked for.
    pub cmd: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Whether it runs. One that is to be started again counts as running.
    pub state: ProcessState,
    /// When it started, by the machine's clock: milliseconds since 1970; the first time, where it was started again.
    pub started_at_ms: f64,
    /// The size of its terminal; absent where it has none.
    pub pty: Option<PtySize>,
    /// How it ended; absent while it runs or is to be started again.
    pub exit: Option<ExitStatus>,
    /// What it is called, if anything.
    pub name: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
    /// When it is started again, by the machine's clock: milliseconds since 1970; absent unless it waits for that.
    pub next_start_at_ms: Option<f64>,
    /// How the run before this one ended, or the last; absent unless it was started again or is to be.
    pub last_exit: Option<ExitStatus>,
    /// Whether it does its work; absent unless its health check has found out.
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
            id: id.into(),
            pid,
            cmd: command,
            args,
            state: state.into(),
            started_at_ms: number(started_at_ms),
            pty: pty.map(Into::into),
            exit: exit.map(Into::into),
            name,
            restarts,
            next_start_at_ms: next_start_at_ms.map(number),
            last_exit: last_exit.map(Into::into),
            healthy,
        }
    }
}

/// How a command went, as `ExecResult` is made of.
#[napi(object, object_from_js = false)]
pub struct CommandResult {
    pub process_id: String,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: Uint8Array,
    pub stderr: Uint8Array,
    pub oom_killed: bool,
    pub timed_out: bool,
    pub duration_ms: f64,
}

impl From<forkyard::CommandResult> for CommandResult {
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
            process_id: process_id.into(),
            exit_code: signal.is_none().then_some(exit_code),
            signal,
            stdout: stdout.into(),
            stderr: stderr.into(),
            oom_killed,
            timed_out,
            duration_ms: duration.as_secs_f64() * 1000.0,
        }
    }
}

/// A piece of a process's output, or its end: one of them is there.
#[napi(object, object_from_js = false)]
#[derive(Default)]
pub struct OutputEvent {
    pub stdout: Option<Uint8Array>,
    pub stderr: Option<Uint8Array>,
    /// Bytes that were lost.
    pub dropped: Option<f64>,
    pub exit: Option<ExitStatus>,
}

impl From<forkyard::OutputEvent> for OutputEvent {
    fn from(event: forkyard::OutputEvent) -> Self {
        use forkyard::OutputEvent as Core;
        match event {
            Core::Stdout(data) => Self { stdout: Some(data.into()), ..Self::default() },
            Core::Stderr(data) => Self { stderr: Some(data.into()), ..Self::default() },
            Core::Dropped { stdout, stderr } => {
                Self { dropped: Some(number(stdout + stderr)), ..Self::default() }
            }
            Core::Exited(status) => Self { exit: Some(status.into()), ..Self::default() },
        }
    }
}

/// A program and how to run it.
#[napi(object, object_to_js = false)]
pub struct CommandRequest {
    /// The program: a path, or a name looked up in `PATH`. No shell is involved.
    pub cmd: String,
    /// Its arguments.
    pub args: Option<Vec<String>>,
    /// Variables added to the machine's environment.
    pub env: Option<BTreeMap<String, String>>,
    /// The folder to start in. Default: the image's, such as `/workspace`.
    pub cwd: Option<String>,
    /// The account. Default: the image's, such as `agent`.
    pub user: Option<String>,
    /// Milliseconds after which it and all that it started are killed in the machine. Default: never.
    pub timeout_ms: Option<f64>,
}

/// What it reads from standard input, and what becomes of it with its call.
pub struct Handling {
    pub stdin: Option<Vec<u8>>,
    pub open_stdin: bool,
    pub kill_on_cancel: bool,
}

impl CommandRequest {
    pub fn handled(self, handling: Handling) -> Result<Command, Error> {
        let Self { cmd, args, env, cwd, user, timeout_ms } = self;
        let Handling { stdin, open_stdin, kill_on_cancel } = handling;
        let mut command = Command::new(cmd).args(args.unwrap_or_default()).kill_on_cancel(kill_on_cancel);
        for (name, value) in env.unwrap_or_default() {
            command = command.env(name, value);
        }
        if let Some(cwd) = cwd {
            command = command.cwd(cwd);
        }
        if let Some(user) = user {
            command = command.user(user);
        }
        if let Some(timeout) = timeout_ms {
            command = command.timeout(millis("timeoutMs", timeout)?);
        }
        if open_stdin {
            command = command.open_stdin();
        }
        Ok(match stdin {
            Some(stdin) => command.stdin(stdin),
            None => command,
        })
    }
}
