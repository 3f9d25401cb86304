use std::time::Duration;

use forkyard_protocol::{HealthCheck, RestartPolicy, RestartWhen, STEADY_MS};

/// Whether and when a process is started again. Pure: who waits and who starts is elsewhere.
#[derive(Debug)]
pub struct Restarts {
    policy: RestartPolicy,
    in_a_row: u32,
}

/// How a run of a process went.
#[derive(Debug, Clone, Copy)]
pub struct RunEnd {
    /// Whether it ended otherwise than with 0, or did not do its work.
    pub failed: bool,
    /// Whether it is not to go on: it was told to end, or its time is up.
    pub is_last: bool,
    /// How long it ran.
    pub lasted: Duration,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    End,
    /// The next run, after a pause.
    StartAfter(Duration),
}

impl Restarts {
    /// Nothing has ended yet; without a policy nothing is started again.
    pub fn new(policy: Option<RestartPolicy>) -> Self {
        let never = || RestartPolicy { when: RestartWhen::Never, ..RestartPolicy::default() };
        Self { policy: policy.unwrap_or_else(never), in_a_row: 0 }
    }

    /// A run has ended.
    pub fn after(&mut self, end: RunEnd) -> Next {
        if end.lasted >= Duration::from_millis(STEADY_MS) {
            self.in_a_row = 0;
        }
        let is_wanted = match self.policy.when {
            RestartWhen::Never => false,
            RestartWhen::OnFailure => end.failed,
            RestartWhen::Always => true,
        };
        let is_spent = self.policy.max_restarts.is_some_and(|most| self.in_a_row >= most);
        if !is_wanted || is_spent || end.is_last {
            return Next::End;
        }
        let factor = 2_u64.saturating_pow(self.in_a_row);
        self.in_a_row = self.in_a_row.saturating_add(1);
        let pause = self.policy.backoff_ms.saturating_mul(factor).min(self.policy.max_backoff_ms);
        Next::StartAfter(Duration::from_millis(pause))
    }
}

/// What the checks of one run have found. Pure, too.
#[derive(Debug)]
pub struct Health {
    retries: u32,
    start_period: Duration,
    failures: u32,
    verdict: Option<bool>,
}

impl Health {
    /// Nothing is known.
    pub fn new(check: &HealthCheck) -> Self {
        let start_period = Duration::from_millis(check.start_period_ms);
        Self { retries: check.retries, start_period, failures: 0, verdict: None }
    }

    /// A check went well, or did not, so long after the start; answers what is known by now.
    pub fn note(&mut self, went_well: bool, after: Duration) -> Option<bool> {
        if went_well {
            self.failures = 0;
            self.verdict = Some(true);
        } else if self.verdict.is_some() || after >= self.start_period {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.retries {
                self.verdict = Some(false);
            }
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const FAILED: RunEnd = RunEnd { failed: true, is_last: false, lasted: SECOND };
    const DONE: RunEnd = RunEnd { failed: false, ..FAILED };

    fn policy(when: RestartWhen, max_restarts: Option<u32>) -> Restarts {
        let policy = RestartPolicy { when, max_restarts, max_backoff_ms: 5000, ..RestartPolicy::default() };
        Restarts::new(Some(policy))
    }

    fn seconds(next: Next) -> Option<u64> {
        match next {
            Next::End => None,
            Next::StartAfter(pause) => Some(pause.as_secs()),
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_a_steady_run_begins_anew() {
        let mut restarts = policy(RestartWhen::OnFailure, None);
        let pauses: Vec<_> = (0..5).map(|_| seconds(restarts.after(FAILED))).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5].map(Some));
        let steady = RunEnd { lasted: Duration::from_millis(STEADY_MS), ..FAILED };
        assert_eq!(seconds(restarts.after(steady)), Some(1));
        assert_eq!(seconds(restarts.after(FAILED)), Some(2));
        (0..100).for_each(|_| assert!(seconds(restarts.after(FAILED)) <= Some(5)));
    }

    #[test]
    fn the_policy_says_which_ends_are_the_last() {
        assert_eq!(Restarts::new(None).after(FAILED), Next::End);
        assert_eq!(policy(RestartWhen::Never, None).after(FAILED), Next::End);
        assert_eq!(policy(RestartWhen::OnFailure, None).after(DONE), Next::End);
        assert_eq!(seconds(policy(RestartWhen::Always, None).after(DONE)), Some(1));
        let told = RunEnd { is_last: true, ..FAILED };
        assert_eq!(policy(RestartWhen::Always, None).after(told), Next::End);
    }

    #[test]
    fn restarts_in_a_row_are_counted() {
        let mut restarts = policy(RestartWhen::Always, Some(2));
        assert_eq!((seconds(restarts.after(FAILED)), seconds(restarts.after(DONE))), (Some(1), Some(2)));
        assert_eq!(restarts.after(FAILED), Next::End);
        let steady = RunEnd { lasted: SECOND * 3600, ..FAILED };
        assert_eq!(seconds(restarts.after(steady)), Some(1));
        assert_eq!(policy(RestartWhen::Always, Some(0)).after(FAILED), Next::End);
    }

    #[test]
    fn a_verdict_takes_failures_in_a_row_and_one_success_undoes_it() {
        let check = HealthCheck { retries: 2, start_period_ms: 3000, ..HealthCheck::default() };
        let mut health = Health::new(&check);
        assert_eq!(health.note(true, SECOND), Some(true));
        assert_eq!(health.note(false, SECOND), Some(true));
        assert_eq!(health.note(false, SECOND), Some(false));
        assert_eq!(health.note(true, SECOND), Some(true));
        // One that has not begun its work may take its time.
        let mut health = Health::new(&check);
        (0..5).for_each(|_| assert_eq!(health.note(false, SECOND), None));
        assert_eq!(health.note(false, SECOND * 3), None);
        assert_eq!(health.note(false, SECOND * 4), Some(false));
    }
}
