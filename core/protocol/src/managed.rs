//! Processes that the machine keeps running by itself.

use serde::{Deserialize, Serialize};

use crate::{ErrorBody, ErrorCode, MAX_ARGS, validate_port};

/// Longest pause before a process is started again: an hour, in milliseconds.
pub const MAX_BACKOFF_MS: u64 = 3600 * 1000;

/// Shortest, in milliseconds.
pub const MIN_BACKOFF_MS: u64 = 100;

/// How long a process must have run for its restarts to be counted from zero again, in milliseconds.
pub const STEADY_MS: u64 = 60_000;

/// Longest interval and time-out of a health check: an hour, in milliseconds.
pub const MAX_CHECK_MS: u64 = 3600 * 1000;

/// Shortest, in milliseconds.
pub const MIN_CHECK_MS: u64 = 100;

/// Most failures in a row that a health check can be told to wait for.
pub const MAX_CHECK_RETRIES: u32 = 100;

/// Longest path of a health check over HTTP, in bytes.
const MAX_HTTP_PATH: usize = 1024;

/// After which ends a process is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum RestartWhen {
    /// After none.
    Never,
    /// After a failure: an exit code other than 0, a signal, or a health check that failed.
    #[default]
    OnFailure,
    /// After all.
    Always,
}

/// Whether and how a process is started again when it has ended. It is not once it was sent SIGTERM, SIGINT or SIGKILL through
/// `…/signal`, or its `timeout_ms`, which counts from the first start, is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RestartPolicy {
    /// After which ends. Default: `on_failure`.
    #[serde(default)]
    pub when: RestartWhen,
    /// Most restarts in a row. A run of 60 seconds or more begins a new row. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// Milliseconds before the first restart of a row, 100 to 3,600,000; each further pause is twice as long. Default: 1,000.
    #[serde(default = "default_backoff")]
    pub backoff_ms: u64,
    /// What pauses grow to, in milliseconds: `backoff_ms` to 3,600,000. Default: 60,000.
    #[serde(default = "default_max_backoff")]
    pub max_backoff_ms: u64,
}

fn default_backoff() -> u64 {
    1000
}

fn default_max_backoff() -> u64 {
    60_000
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            when: RestartWhen::default(),
            max_restarts: None,
            backoff_ms: default_backoff(),
            max_backoff_ms: default_max_backoff(),
        }
    }
}

impl RestartPolicy {
    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        within("restart.backoff_ms", self.backoff_ms, MIN_BACKOFF_MS, MAX_BACKOFF_MS)?;
        within("restart.max_backoff_ms", self.max_backoff_ms, self.backoff_ms, MAX_BACKOFF_MS)
    }
}

/// How it is found out, again and again, whether a process does its work: by a command, or by a port, to which a request is sent
/// where there is a path too. A process that does not, and has a restart policy other than `never`, is ended as one that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HealthCheck {
    /// A program and its arguments, which must end with 0. It runs as the process does: same account, folder, environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// A TCP port of the machine's loopback, which must take a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// With `port`: what is asked for by `GET`, which must be answered with a status of 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<String>,
    /// Milliseconds from the start to the first check, and from the end of each to the next, 100 to 3,600,000. Default: 10,000.
    #[serde(default = "default_interval")]
    pub interval_ms: u64,
    /// Milliseconds after which a check has failed, 100 to 3,600,000. Default: 5,000.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// Failures in a row by which it is known that the process does not do its work, 1 to 100. Default: 3.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Milliseconds from a start in which failures do not count unless there was a success before: how long the process may take to
    /// begin its work, 0 to 3,600,000. Default: 30,000.
    #[serde(default = "default_start_period")]
    pub start_period_ms: u64,
}

fn default_interval() -> u64 {
    10_000
}

fn default_timeout() -> u64 {
    5000
}

fn default_retries() -> u32 {
    3
}

fn default_start_period() -> u64 {
    30_000
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            port: None,
            http_path: None,
            interval_ms: default_interval(),
            timeout_ms: default_timeout(),
            retries: default_retries(),
            start_period_ms: default_start_period(),
        }
    }
}

impl HealthCheck {
    /// Checks every value; the error names the first that is wrong and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        if self.command.is_empty() == self.port.is_none() {
            return refuse("health_check needs a 'command' or a 'port', and not both".to_owned());
        }
        if let Some(program) = self.command.first()
            && (program.is_empty()
                || self.command.len() > MAX_ARGS
                || self.command.iter().any(|word| word.contains('\0')))
        {
            let what = "a program and its arguments, without NUL";
            return refuse(format!("health_check.command must be {what}, at most {MAX_ARGS} words"));
        }
        self.port.map_or(Ok(()), validate_port)?;
        if let Some(path) = &self.http_path {
            if self.port.is_none() {
                return refuse("health_check.http_path needs a 'port'".to_owned());
            }
            let fits = path.starts_with('/') && path.len() <= MAX_HTTP_PATH;
            if !fits || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                let what = "must begin with '/' and be of visible ASCII characters";
                return refuse(format!("health_check.http_path {what}, at most {MAX_HTTP_PATH}"));
            }
        }
        within("health_check.interval_ms", self.interval_ms, MIN_CHECK_MS, MAX_CHECK_MS)?;
        within("health_check.timeout_ms", self.timeout_ms, MIN_CHECK_MS, MAX_CHECK_MS)?;
        within("health_check.start_period_ms", self.start_period_ms, 0, MAX_CHECK_MS)?;
        within("health_check.retries", u64::from(self.retries), 1, u64::from(MAX_CHECK_RETRIES))
    }
}

fn within(name: &str, value: u64, least: u64, most: u64) -> Result<(), ErrorBody> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(format!("{name} must be between {least} and {most}, not {value}"))
}

fn refuse(message: String) -> Result<(), ErrorBody> {
    Err(ErrorBody::new(ErrorCode::InvalidArgument, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut HealthCheck)) -> String {
        let mut check = HealthCheck { port: Some(80), ..HealthCheck::default() };
        check.validate().unwrap();
        change(&mut check);
        check.validate().unwrap_err().message
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(check(|c| c.port = None).contains("a 'command' or a 'port'"));
        assert!(check(|c| c.command = vec!["true".into()]).contains("not both"));
        assert!(check(|c| (c.port, c.command) = (None, vec![String::new()])).contains("a program"));
        assert!(check(|c| c.port = Some(0)).contains("port"));
        assert!(check(|c| c.http_path = Some("health".into())).contains("must begin with '/'"));
        assert!(check(|c| c.http_path = Some("/a\r\nX: y".into())).contains("visible ASCII"));
        assert!(check(|c| c.interval_ms = 99).contains("between 100 and 3600000, not 99"));
        assert!(check(|c| c.retries = 0).contains("health_check.retries must be between 1 and 100"));
        let restart = RestartPolicy { backoff_ms: 500, max_backoff_ms: 400, ..RestartPolicy::default() };
        assert!(restart.validate().unwrap_err().message.contains("max_backoff_ms must be between 500"));
        let policy: RestartPolicy = serde_json::from_str("{}").unwrap();
        assert_eq!(policy, RestartPolicy::default());
    }
}
