use std::time::Duration;

use crate::{Answer, Error, value};

/// RestartWhen is after which ends a process is started again.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum RestartWhen {
    /// A failure: an exit code other than 0, a signal, or a health check that failed.
    OnFailure,
    /// All.
    Always,
    /// None.
    Never,
}

impl From<RestartWhen> for forkyard::RestartWhen {
    fn from(when: RestartWhen) -> Self {
        match when {
            RestartWhen::OnFailure => Self::OnFailure,
            RestartWhen::Always => Self::Always,
            RestartWhen::Never => Self::Never,
        }
    }
}

/// RestartPolicy is whether and how a process is started again when it has ended. It is not once it was sent SIGTERM, SIGINT or
/// SIGKILL by [Process.Signal] or [Process.Kill], or its Timeout, which counts from the first start, is over. Zero values stand for
/// defaults.
#[derive(Debug, uniffi::Record)]
pub struct RestartPolicy {
    /// When is after which ends. Default: [RestartWhenOnFailure].
    pub when: RestartWhen,
    /// MaxRestarts are the most restarts in a row; a run of 60 seconds or more begins a new row. Default: no limit.
    pub max_restarts: i32,
    /// Backoff is the pause before the first restart of a row, 100 ms to an hour; each further one is twice as long. Default: 1 second.
    pub backoff: Duration,
    /// MaxBackoff is what pauses grow to, Backoff to an hour. Default: 60 seconds.
    pub max_backoff: Duration,
}

impl TryFrom<RestartPolicy> for forkyard::RestartPolicy {
    type Error = Error;

    fn try_from(policy: RestartPolicy) -> Answer<Self> {
        let RestartPolicy { when, max_restarts, backoff, max_backoff } = policy;
        let defaults = Self::default();
        Ok(Self {
            when: when.into(),
            max_restarts: value::count("Restart.MaxRestarts", max_restarts)?,
            backoff_ms: millis(backoff, defaults.backoff_ms),
            max_backoff_ms: millis(max_backoff, defaults.max_backoff_ms),
        })
    }
}

/// HealthCheck is how a machine finds out, again and again, whether a process does its work: by a command, or by a port. A process
/// that does not, and has a restart policy other than [RestartWhenNever], is ended as one that failed. Zero values stand for
/// defaults.
#[derive(Debug, uniffi::Record)]
pub struct HealthCheck {
    /// Command is a program and its arguments, which must end with 0. It runs as the process does: same account, folder, environment.
    pub command: Vec<String>,
    /// Port is a TCP port of the machine's loopback, which must take a connection.
    pub port: i32,
    /// HTTPPath is, with Port, what is asked for by GET, which must be answered with a status of 200 to 399.
    pub http_path: String,
    /// Interval is the time from the start to the first check, and from the end of each to the next, 100 ms to an hour. Default: 10
    /// seconds.
    pub interval: Duration,
    /// Timeout is after how long a check has failed, 100 ms to an hour. Default: 5 seconds.
    pub timeout: Duration,
    /// Retries are the failures in a row by which it is known that the process does not do its work, 1 to 100. Default: 3.
    pub retries: i32,
    /// StartPeriod is the time from a start in which failures do not count unless there was a success before: how long the process
    /// may take to begin its work, at most an hour. Default: 30 seconds; for next to none, a millisecond.
    pub start_period: Duration,
}

impl TryFrom<HealthCheck> for forkyard::HealthCheck {
    type Error = Error;

    fn try_from(check: HealthCheck) -> Answer<Self> {
        let HealthCheck { command, port, http_path, interval, timeout, retries, start_period } = check;
        let defaults = Self::default();
        let fits = u16::try_from(port);
        let port = fits.map_err(|_| {
            Error::invalid(format!("HealthCheck.Port must be between 1 and 65535, not {port}"))
        })?;
        Ok(Self {
            command,
            port: (port != 0).then_some(port),
            http_path: value::text(http_path),
            interval_ms: millis(interval, defaults.interval_ms),
            timeout_ms: millis(timeout, defaults.timeout_ms),
            retries: value::count("HealthCheck.Retries", retries)?.unwrap_or(defaults.retries),
            start_period_ms: millis(start_period, defaults.start_period_ms),
        })
    }
}

/// A length of time in whole milliseconds, rounded up; 0 stands for the default.
fn millis(value: Duration, default: u64) -> u64 {
    if value.is_zero() {
        return default;
    }
    u64::try_from(value.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
