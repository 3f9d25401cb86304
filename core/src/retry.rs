//! When a call is tried again: decided without I/O.

use std::time::Duration;

use crate::error::{Error, ErrorCode};

/// The first wait is at most this long; each further one at most twice the one before.
const BASE: Duration = Duration::from_millis(100);

/// No wait is longer than this, unless the server asks for it.
const CAP: Duration = Duration::from_secs(5);

/// How often a call is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries after the first attempt. Want of room on the host does not count: it passes, and the deadline bounds it.
    pub max_retries: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: 4 }
    }
}

impl RetryPolicy {
    /// How long to wait before the next attempt, or `None` where there shall be none. `attempt` counts from 0, `left` is the
    /// time until the caller's deadline, `random` is in 0..1 (full jitter: callers that failed together come back apart).
    pub fn delay(self, attempt: u32, error: &Error, left: Duration, random: f64) -> Option<Duration> {
        if !error.is_retryable() || (attempt >= self.max_retries && error.code != ErrorCode::NoCapacity) {
            return None;
        }
        let ceiling = BASE.saturating_mul(1u32.checked_shl(attempt.min(16)).unwrap_or(u32::MAX)).min(CAP);
        let delay = error.retry_after.unwrap_or_default() + ceiling.mul_f64(random.clamp(0.0, 1.0));
        (delay < left).then_some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGES: Duration = Duration::from_hours(1);

    fn delay(attempt: u32, code: ErrorCode, random: f64) -> Option<Duration> {
        RetryPolicy::default().delay(attempt, &Error::new(code, ""), AGES, random)
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let full = |attempt| delay(attempt, ErrorCode::NoCapacity, 1.0).unwrap().as_millis();
        assert_eq!([0, 1, 2, 3, 5, 6, 40].map(full), [100, 200, 400, 800, 3200, 5000, 5000]);
        assert_eq!(delay(3, ErrorCode::Unavailable, 0.0), Some(Duration::ZERO));
    }

    #[test]
    fn only_what_can_pass_is_tried_again_and_not_for_ever() {
        assert_eq!(delay(0, ErrorCode::NotFound, 0.5), None);
        assert_eq!(delay(0, ErrorCode::QuotaExceeded, 0.5), None);
        assert!(delay(3, ErrorCode::Connection, 0.5).is_some());
        assert_eq!(delay(4, ErrorCode::Connection, 0.5), None);
        assert!(delay(1000, ErrorCode::NoCapacity, 0.5).is_some());
    }

    #[test]
    fn the_servers_wish_and_the_callers_deadline_hold() {
        let mut error = Error::new(ErrorCode::RateLimited, "");
        error.retry_after = Some(Duration::from_secs(7));
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(0, &error, AGES, 0.0), Some(Duration::from_secs(7)));
        assert_eq!(policy.delay(0, &error, Duration::from_secs(6), 0.0), None);
    }
}
