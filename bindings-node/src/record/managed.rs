use forkyard::{Command, Error};
use napi::bindgen_prelude::Either;
use napi_derive::napi;

use super::mirror;
use crate::value::{whole, whole_or_none};

/// After which ends a process is started again: none; a failure, that is an exit code other than 0, a signal, or a health check
/// that failed; all.
#[napi(string_enum = "snake_case")]
pub enum RestartWhen {
    Never,
    OnFailure,
    Always,
}

mirror!(RestartWhen = forkyard::RestartWhen { Never, OnFailure, Always });

/// Whether and how a process is started again when it has ended. It is not once it was sent SIGTERM, SIGINT or SIGKILL by
/// `Process.sendSignal` or `Process.kill`, or its `timeoutMs`, which counts from the first start, is over.
#[napi(object, object_to_js = false)]
pub struct RestartPolicy {
    /// After which ends. Default: `on_failure`.
    pub when: Option<RestartWhen>,
    /// Most restarts in a row; a run of 60 seconds or more begins a new row. Default: no limit.
    pub max_restarts: Option<f64>,
    /// Milliseconds before the first restart of a row, 100 to 3,600,000; each further pause is twice as long. Default: 1,000.
    pub backoff_ms: Option<f64>,
    /// What pauses grow to, in milliseconds: `backoffMs` to 3,600,000. Default: 60,000.
    pub max_backoff_ms: Option<f64>,
}

impl TryFrom<RestartPolicy> for forkyard::RestartPolicy {
    type Error = Error;

    fn try_from(policy: RestartPolicy) -> Result<Self, Error> {
        let RestartPolicy { when, max_restarts, backoff_ms, max_backoff_ms } = policy;
        let default = Self::default();
        Ok(Self {
            when: when.map_or(default.when, Into::into),
            max_restarts: whole_or_none("restart.maxRestarts", max_restarts)?,
            backoff_ms: whole_or("restart.backoffMs", backoff_ms, default.backoff_ms)?,
            max_backoff_ms: whole_or("restart.maxBackoffMs", max_backoff_ms, default.max_backoff_ms)?,
        })
    }
}

/// How a machine finds out, again and again, whether a process does its work: by a command, or by a port. A process that does not,
/// and has a restart policy other than `never`, is ended as one that failed.
#[napi(object, object_to_js = false)]
pub struct HealthCheck {
    /// A program and its arguments, which must end with 0. It runs as the process does: same account, folder, environment.
    pub command: Option<Vec<String>>,
    /// A TCP port of the machine's loopback, which must take a connection.
    pub port: Option<f64>,
    /// With `port`: what is asked for by `GET`, which must be answered with a status of 200 to 399.
    pub http_path: Option<String>,
    /// Milliseconds from the start to the first check, and from the end of each to the next, 100 to 3,600,000. Default: 10,000.
    pub interval_ms: Option<f64>,
    /// Milliseconds after which a check has failed, 100 to 3,600,000. Default: 5,000.
    pub timeout_ms: Option<f64>,
    /// Failures in a row by which it is known that the process does not do its work, 1 to 100. Default: 3.
    pub retries: Option<f64>,
    /// Milliseconds from a start in which failures do not count unless there was a success before: how long the process may take to
    /// begin its work, 0 to 3,600,000. Default: 30,000.
    pub start_period_ms: Option<f64>,
}

impl TryFrom<HealthCheck> for forkyard::HealthCheck {
    type Error = Error;

    fn try_from(check: HealthCheck) -> Result<Self, Error> {
        let HealthCheck { command, port, http_path, interval_ms, timeout_ms, retries, start_period_ms } =
            check;
        let default = Self::default();
        Ok(Self {
            command: command.unwrap_or_default(),
            port: whole_or_none("healthCheck.port", port)?,
            http_path,
            interval_ms: whole_or("healthCheck.intervalMs", interval_ms, default.interval_ms)?,
            timeout_ms: whole_or("healthCheck.timeoutMs", timeout_ms, default.timeout_ms)?,
            retries: whole_or("healthCheck.retries", retries, default.retries)?,
            start_period_ms: whole_or("healthCheck.startPeriodMs", start_period_ms, default.start_period_ms)?,
        })
    }
}

/// How a process is kept running.
#[napi(object, object_to_js = false)]
pub struct ManagementRequest {
    /// What it is called in `Sandbox.processes`: 1 to 63 of `a-z 0-9 -`, of no other process that has not ended. Default: nothing.
    pub name: Option<String>,
    /// Whether it is started again when it has ended; not with standard input. Default: `never`.
    pub restart: Option<Either<RestartWhen, RestartPolicy>>,
    /// How the machine finds out whether it does its work. Default: not at all.
    pub health_check: Option<HealthCheck>,
}

impl ManagementRequest {
    pub fn manage(self, mut command: Command) -> Result<Command, Error> {
        let Self { name, restart, health_check } = self;
        if let Some(name) = name {
            command = command.name(name);
        }
        if let Some(restart) = restart {
            command = command.restart(match restart {
                Either::A(when) => {
                    forkyard::RestartPolicy { when: when.into(), ..forkyard::RestartPolicy::default() }
                }
                Either::B(policy) => policy.try_into()?,
            });
        }
        if let Some(check) = health_check {
            command = command.health_check(check.try_into()?);
        }
        Ok(command)
    }
}

fn whole_or<T: TryFrom<u64>>(name: &str, value: Option<f64>, default: T) -> Result<T, Error> {
    value.map_or(Ok(default), |value| whole(name, value))
}
