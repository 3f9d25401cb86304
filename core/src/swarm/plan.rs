//! What a swarm does next, and what it did: decided without I/O and without a clock. Drivers in any language tell it what
//! happened and when, in seconds since the swarm began.

use std::collections::VecDeque;

use serde::Serialize;

use crate::error::{Error, ErrorCode, Result};

/// Most tasks of one swarm.
const MAX_TASKS: usize = 1_000_000;

/// How a swarm works through its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwarmPolicy {
    /// Tasks that are under way at once, at least 1. Default: 8.
    pub concurrency: usize,
    /// How often a task that failed is tried again, each time in a new machine. Default: 0.
    pub retries: u32,
}

impl Default for SwarmPolicy {
    fn default() -> Self {
        Self { concurrency: 8, retries: 0 }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// It waits for its turn, the first or another.
    Waiting,
    /// Its machine was asked for.
    Starting,
    /// Its machine runs, and its job with it.
    Running,
    /// It is done.
    Succeeded,
    /// It failed, and is not tried again.
    Failed,
    /// The swarm was cancelled before it came to its end.
    Cancelled,
}

/// One attempt at a task. Times are seconds since the swarm began.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttemptReport {
    /// When its machine was asked for.
    pub started: f64,
    /// When its machine ran; none where it never did.
    pub ready: Option<f64>,
    /// When it ended; none while it is under way.
    pub ended: Option<f64>,
    /// The machine.
    pub sandbox_id: Option<String>,
    /// Why it failed, for people.
    pub error: Option<String>,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskReport {
    /// Its place among the tasks, from 0.
    pub index: usize,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its attempts, in their order.
    pub attempts: Vec<AttemptReport>,
}

/// How far a swarm has come: how many of its tasks stand where. Cheap however many there are.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct SwarmProgress {
    /// Seconds since its begin.
    pub wall_secs: f64,
    /// Tasks in all.
    pub total: usize,
    /// Tasks that wait for their turn, the first or another.
    pub waiting: usize,
    /// Tasks whose machine was asked for.
    pub starting: usize,
    /// Tasks whose machine runs.
    pub running: usize,
    /// Tasks that are done.
    pub succeeded: usize,
    /// Tasks that failed.
    pub failed: usize,
    /// Tasks that were cancelled.
    pub cancelled: usize,
}

impl SwarmProgress {
    fn count(&mut self, status: TaskStatus) -> &mut usize {
        match status {
            TaskStatus::Waiting => &mut self.waiting,
            TaskStatus::Starting => &mut self.starting,
            TaskStatus::Running => &mut self.running,
            TaskStatus::Succeeded => &mut self.succeeded,
            TaskStatus::Failed => &mut self.failed,
            TaskStatus::Cancelled => &mut self.cancelled,
        }
    }
}

/// What a swarm did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SwarmReport {
    /// Seconds from its begin to its end.
    pub wall_secs: f64,
    /// Seconds that its attempts took in all: what they would have taken one after another, had each been as fast.
    pub sequential_secs: f64,
    /// How many times faster it was than that.
    pub speedup: f64,
    /// The speed-up for each task that could be under way at once: 1 where all of them worked all of the time.
    pub efficiency: f64,
    /// Tasks that are done.
    pub succeeded: usize,
    /// Tasks that failed.
    pub failed: usize,
    /// Tasks that were cancelled.
    pub cancelled: usize,
    /// Each task, in the order in which they were given.
    pub tasks: Vec<TaskReport>,
}

/// What is to become of a task whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// It is tried again in its turn.
    Retry,
    /// It has failed.
    GiveUp,
}

/// The plan of one swarm.
#[derive(Debug, Clone)]
pub struct SwarmPlan {
    policy: SwarmPolicy,
    tasks: Vec<TaskReport>,
    waiting: VecDeque<usize>,
    progress: SwarmProgress,
}

impl SwarmPlan {
    /// A plan for so many tasks. Fails with `invalid_argument` where they, or those at once, are out of range.
    pub fn new(tasks: usize, policy: SwarmPolicy) -> Result<Self> {
        if policy.concurrency == 0 {
            return Err(Error::new(ErrorCode::InvalidArgument, "concurrency must be at least 1"));
        }
        if tasks > MAX_TASKS {
            let message = format!("a swarm has at most {MAX_TASKS} tasks, not {tasks}");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let report = |index| TaskReport { index, status: TaskStatus::Waiting, attempts: Vec::new() };
        Ok(Self {
            policy,
            tasks: (0..tasks).map(report).collect(),
            waiting: (0..tasks).collect(),
            progress: SwarmProgress { total: tasks, waiting: tasks, ..SwarmProgress::default() },
        })
    }

    /// The next task to begin, if one may begin now.
    pub fn next(&mut self, now: f64) -> Option<usize> {
        if self.under_way() >= self.policy.concurrency {
            return None;
        }
        let index = self.waiting.pop_front()?;
        let attempt = AttemptReport { started: now, ready: None, ended: None, sandbox_id: None, error: None };
        self.tasks[index].attempts.push(attempt);
        self.put(index, TaskStatus::Starting);
        Some(index)
    }

    /// A task's machine runs.
    pub fn ready(&mut self, index: usize, sandbox_id: &str, now: f64) {
        if let Some(attempt) = self.current(index) {
            attempt.ready = Some(now);
            attempt.sandbox_id = Some(sandbox_id.to_owned());
            self.put(index, TaskStatus::Running);
        }
    }

    /// A task is done.
    pub fn succeeded(&mut self, index: usize, now: f64) {
        self.end(index, TaskStatus::Succeeded, None, now);
    }

    /// A task's attempt failed. `is_final` where another cannot help, as for a request that was refused.
    pub fn failed(&mut self, index: usize, error: &str, is_final: bool, now: f64) -> AfterFailure {
        let attempts = self.tasks.get(index).map_or(0, |task| task.attempts.len());
        let tries_left = u32::try_from(attempts).is_ok_and(|attempts| attempts <= self.policy.retries);
        if is_final || !tries_left {
            self.end(index, TaskStatus::Failed, Some(error), now);
            return AfterFailure::GiveUp;
        }
        self.end(index, TaskStatus::Waiting, Some(error), now);
        // Behind those that were not tried yet: what made it fail may pass meanwhile.
        self.waiting.push_back(index);
        AfterFailure::Retry
    }

    /// Nothing more begins, and what is under way does not count.
    pub fn cancel(&mut self, now: f64) {
        self.waiting.clear();
        for index in 0..self.tasks.len() {
            match self.tasks[index].status {
                TaskStatus::Starting | TaskStatus::Running => {
                    self.end(index, TaskStatus::Cancelled, None, now);
                }
                TaskStatus::Waiting => self.put(index, TaskStatus::Cancelled),
                TaskStatus::Succeeded | TaskStatus::Failed | TaskStatus::Cancelled => {}
            }
        }
    }

    /// How far it has come.
    pub fn progress(&self, now: f64) -> SwarmProgress {
        SwarmProgress { wall_secs: now, ..self.progress }
    }

    /// What was done until now.
    pub fn report(&self, now: f64) -> SwarmReport {
        let attempts = self.tasks.iter().flat_map(|task| &task.attempts);
        let sequential_secs = attempts.map(|attempt| attempt.ended.unwrap_or(now) - attempt.started).sum();
        let speedup = if now > 0.0 { sequential_secs / now } else { 0.0 };
        let at_once = self.policy.concurrency.min(self.tasks.len()).max(1);
        // Far below 2^52, where this would no longer be exact.
        #[allow(clippy::cast_precision_loss)]
        let efficiency = speedup / at_once as f64;
        SwarmReport {
            wall_secs: now,
            sequential_secs,
            speedup,
            efficiency,
            succeeded: self.progress.succeeded,
            failed: self.progress.failed,
            cancelled: self.progress.cancelled,
            tasks: self.tasks.clone(),
        }
    }

    fn under_way(&self) -> usize {
        self.progress.starting + self.progress.running
    }

    fn current(&mut self, index: usize) -> Option<&mut AttemptReport> {
        let is_under_way =
            |task: &&mut TaskReport| matches!(task.status, TaskStatus::Starting | TaskStatus::Running);
        self.tasks.get_mut(index).filter(is_under_way)?.attempts.last_mut()
    }

    fn put(&mut self, index: usize, status: TaskStatus) {
        *self.progress.count(self.tasks[index].status) -= 1;
        *self.progress.count(status) += 1;
        self.tasks[index].status = status;
    }

    fn end(&mut self, index: usize, status: TaskStatus, error: Option<&str>, now: f64) {
        // A driver that says so twice, or of a task that was cancelled, is not heard.
        let Some(attempt) = self.current(index) else { return };
        attempt.ended = Some(now);
        attempt.error = error.map(str::to_owned);
        self.put(index, status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(tasks: usize, concurrency: usize, retries: u32) -> SwarmPlan {
        SwarmPlan::new(tasks, SwarmPolicy { concurrency, retries }).unwrap()
    }

    fn is_done(plan: &SwarmPlan) -> bool {
        plan.under_way() == 0 && plan.waiting.is_empty()
    }

    #[test]
    fn no_more_than_allowed_are_under_way() {
        let mut plan = plan(3, 2, 0);
        assert_eq!([plan.next(0.0), plan.next(0.0), plan.next(0.0)], [Some(0), Some(1), None]);
        plan.ready(1, "sbx_1", 0.5);
        let progress = plan.progress(0.5);
        assert_eq!((progress.total, progress.waiting, progress.starting, progress.running), (3, 1, 1, 1));
        plan.succeeded(0, 1.0);
        assert_eq!(plan.next(1.0), Some(2));
        plan.succeeded(1, 2.0);
        plan.succeeded(2, 2.0);
        assert!(is_done(&plan));
        let report = plan.report(2.0);
        assert_eq!((report.succeeded, report.sequential_secs, report.speedup), (3, 4.0, 2.0));
        assert!((report.efficiency - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_failure_is_tried_again_behind_the_others_and_not_for_ever() {
        let mut plan = plan(2, 1, 1);
        assert_eq!(plan.next(0.0), Some(0));
        assert_eq!(plan.failed(0, "lost", false, 1.0), AfterFailure::Retry);
        assert_eq!(plan.next(1.0), Some(1));
        plan.succeeded(1, 2.0);
        assert_eq!(plan.next(2.0), Some(0));
        assert_eq!(plan.failed(0, "lost again", false, 3.0), AfterFailure::GiveUp);
        let report = plan.report(3.0);
        let errors: Vec<_> = report.tasks[0].attempts.iter().map(|it| it.error.as_deref()).collect();
        assert_eq!(errors, [Some("lost"), Some("lost again")]);
        assert_eq!((report.succeeded, report.failed), (1, 1));
    }

    #[test]
    fn what_another_attempt_cannot_mend_is_given_up_at_once() {
        let mut plan = plan(1, 1, 5);
        plan.next(0.0);
        assert_eq!(plan.failed(0, "no such image", true, 1.0), AfterFailure::GiveUp);
        assert!(is_done(&plan));
    }

    #[test]
    fn a_cancelled_swarm_begins_nothing_and_counts_nothing_late() {
        let mut plan = plan(3, 2, 3);
        plan.next(0.0);
        plan.ready(0, "sbx_1", 0.5);
        plan.succeeded(0, 1.0);
        plan.next(1.0);
        plan.cancel(2.0);
        plan.succeeded(1, 3.0);
        assert!(is_done(&plan));
        assert_eq!(plan.next(3.0), None);
        let report = plan.report(3.0);
        assert_eq!((report.succeeded, report.cancelled), (1, 2));
        assert_eq!(report.tasks[0].attempts[0].sandbox_id.as_deref(), Some("sbx_1"));
    }

    #[test]
    fn nothing_at_once_is_refused() {
        let error = SwarmPlan::new(1, SwarmPolicy { concurrency: 0, retries: 0 }).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert!(is_done(&plan(0, 1, 0)));
    }
}
