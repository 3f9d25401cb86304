use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ErrorBody, ErrorCode, HealthCheck, ProcessId, PtySize, PtySpec, RawPath, RestartPolicy, RestartWhen,
    sandbox::validate_env, validate_name,
};

/// Most arguments of one process.
pub const MAX_ARGS: usize = 4096;

/// Most bytes of a process's arguments in all.
pub const MAX_ARGS_BYTES: usize = 256 * 1024;

/// Longest time-out of a process: a week, in milliseconds.
pub const MAX_PROCESS_TIMEOUT_MS: u64 = 7 * 24 * 3600 * 1000;

/// What to start: `POST …/processes`.
///
/// Sent again with the same `id`, the call answers with the process that is already there, so a start can be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessSpec {
    /// The process's id, chosen by the client. Default: one made by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ProcessId>,
    /// The program: a path, or a name looked up in the process's `PATH`. No shell is involved. With `pty` it may be left out:
    /// the account's shell.
    #[serde(default)]
    pub command: String,
    /// Its arguments, without the program's own name. At most 4,096, of 256 KiB in all.
    #[serde(default)]
    pub args: Vec<String>,
    /// Variables added to the sandbox's environment; these win.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The folder to start in. Default: the image's, such as `/workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The account's name or number. Default: the image's, such as `agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether standard input is a pipe that `…/stdin` fills. Default: false, an empty input.
    #[serde(default)]
    pub stdin: bool,
    /// The pseudo-terminal to start it on; `stdin` then does not matter. Default: none, pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pty: Option<PtySpec>,
    /// Milliseconds after which the process and everything it started are killed. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What it is called in lists: 1 to 63 of `a-z 0-9 -`, of no other process that has not ended. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is started again when it has ended; then it has no `stdin` and no `pty`. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// How it is found out whether it does its work; not with `pty`. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
}

impl ProcessSpec {
    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        let fail = |message: String| Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
        let lacks_command = self.command.is_empty() && (self.pty.is_none() || !self.args.is_empty());
        if lacks_command || self.command.contains('\0') {
            return fail("command must be a program's name or path, without NUL".to_owned());
        }
        if self.args.len() > MAX_ARGS {
            return fail(format!("at most {MAX_ARGS} arguments, not {}", self.args.len()));
        }
        let size: usize = self.args.iter().map(|arg| arg.len() + 1).sum();
        if size > MAX_ARGS_BYTES {
            return fail(format!("the arguments take {size} bytes; at most {MAX_ARGS_BYTES} are allowed"));
        }
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return fail("arguments must not contain NUL".to_owned());
        }
        if let Some(cwd) = &self.cwd
            && let Err(error) = RawPath::new(cwd.as_bytes())
        {
            return fail(format!("cwd: {error}"));
        }
        if let Some(user) = &self.user
            && (user.is_empty() || user.len() > 32 || user.contains(|c: char| c.is_control() || c == ':'))
        {
            return fail("user must be an account's name or number, 1 to 32 characters".to_owned());
        }
        if let Some(pty) = &self.pty {
            pty.validate()?;
        }
        if let Some(timeout) = self.timeout_ms
            && !(1..=MAX_PROCESS_TIMEOUT_MS).contains(&timeout)
        {
            return fail(format!("timeout_ms must be between 1 and {MAX_PROCESS_TIMEOUT_MS}, not {timeout}"));
        }
        self.validate_management()?;
        validate_env(&self.env)
    }

    /// Whether it may be started again.
    pub fn restarts(&self) -> bool {
        self.restart.as_ref().is_some_and(|restart| restart.when != RestartWhen::Never)
    }

    fn validate_management(&self) -> Result<(), ErrorBody> {
        let fail = |message: &str| Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
        if let Some(name) = &self.name
            && let Err(error) = validate_name(name)
        {
            return fail(&error.to_string());
        }
        if self.pty.is_some() && (self.restarts() || self.health_check.is_some()) {
            return fail("a process on a terminal is not started again, and has no health check");
        }
        if self.stdin && self.restarts() {
            return fail("a process that is started again has no standard input; leave out 'stdin'");
        }
        self.restart.as_ref().map_or(Ok(()), RestartPolicy::validate)?;
        self.health_check.as_ref().map_or(Ok(()), HealthCheck::validate)
    }
}

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ProcessState {
    /// It runs, or is to be started again: `next_start_at_ms`.
    Running,
    /// It has ended; `exit` says how.
    Exited,
}

/// A process, running or ended. Ended ones are kept for a while, newest first to stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessInfo {
    /// The process's id.
    pub id: ProcessId,
    /// The guest kernel's number for it.
    pub pid: u32,
    /// The program as it was asked for.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where it stands.
    pub state: ProcessState,
    /// When it started: milliseconds since 1970 by the guest's clock.
    pub started_at_ms: u64,
    /// The size of its terminal; only where it was started on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pty: Option<PtySize>,
    /// How it ended; only when it has, and is not started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitStatus>,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How often it was started again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// When it is started again: milliseconds since 1970 by the guest's clock; only while it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start_at_ms: Option<u64>,
    /// How the run before this one ended, or the last; only of a process that was started again, or is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<ExitStatus>,
    /// Whether it does its work; only while it runs, and as soon as its health check has found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the shape that serde wants
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a process ended: by itself with a code, or by a signal; exactly one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExitStatus {
    /// The exit code, 0 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The number of the signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The guest's kernel killed it, or one of its children, for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// It was killed since its `timeout_ms` had passed.
    #[serde(default)]
    pub timed_out: bool,
    /// Wall time from start to end in milliseconds, by the guest's clock.
    #[serde(default)]
    pub duration_ms: u64,
    /// Bytes written to standard output in all.
    #[serde(default)]
    pub stdout_bytes: u64,
    /// Bytes written to standard error in all.
    #[serde(default)]
    pub stderr_bytes: u64,
}

/// The processes of a sandbox, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessList {
    /// The processes.
    pub processes: Vec<ProcessInfo>,
}

/// One of a process's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Sends a signal: `POST …/processes/{id}/signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SignalRequest {
    /// The signal's number, 1 to 64. 9 kills everything that the process started, even what left its process group.
    pub signal: i32,
}

/// What `PUT …/stdin` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StdinReply {
    /// Bytes of standard input that this writer has given the process; where its next call goes on.
    pub offset: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl FnOnce(&mut ProcessSpec)) -> String {
        let mut spec = ProcessSpec { command: "true".into(), ..ProcessSpec::default() };
        spec.validate().unwrap();
        change(&mut spec);
        spec.validate().unwrap_err().message
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        assert!(message(|s| s.command.clear()).starts_with("command"));
        assert!(message(|s| s.pty = Some(PtySpec { rows: 0, ..PtySpec::default() })).starts_with("rows"));
        let shell = ProcessSpec { pty: Some(PtySpec::default()), ..ProcessSpec::default() };
        shell.validate().unwrap();
        assert!(ProcessSpec { args: vec!["a".into()], ..shell }.validate().is_err());
        assert!(message(|s| s.args = vec![String::new(); 4097]).contains("4096"));
        assert!(message(|s| s.args = vec!["x".repeat(300_000)]).contains("262144"));
        assert!(message(|s| s.args = vec!["a\0".into()]).contains("NUL"));
        assert!(message(|s| s.cwd = Some("relative".into())).starts_with("cwd: the path must be absolute"));
        assert!(message(|s| s.user = Some("a:b".into())).starts_with("user"));
        assert!(message(|s| s.timeout_ms = Some(0)).starts_with("timeout_ms"));
        assert!(message(|s| s.name = Some("a b".into())).starts_with("a name"));
        let restart = Some(RestartPolicy::default());
        assert!(message(|s| (s.stdin, s.restart) = (true, restart.clone())).contains("no standard input"));
        let pty = Some(PtySpec::default());
        assert!(message(|s| (s.pty, s.restart) = (pty.clone(), restart)).contains("on a terminal"));
        let health_check = Some(HealthCheck { port: Some(80), ..HealthCheck::default() });
        assert!(message(|s| (s.pty, s.health_check) = (pty, health_check)).contains("on a terminal"));
        assert!(message(|s| s.health_check = Some(HealthCheck::default())).starts_with("health_check"));
    }
}
