use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forkyard::{AfterFailure, SwarmPolicy};

use crate::{Answer, value};

/// SwarmPlan says what a swarm does next; Go's half does it. Times are since the swarm began.
#[derive(uniffi::Object)]
pub struct SwarmPlan {
    plan: Mutex<forkyard::SwarmPlan>,
}

/// TaskStatus is where a swarm's task stands.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
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

impl From<forkyard::TaskStatus> for TaskStatus {
    fn from(status: forkyard::TaskStatus) -> Self {
        match status {
            forkyard::TaskStatus::Waiting => Self::Waiting,
            forkyard::TaskStatus::Starting => Self::Starting,
            forkyard::TaskStatus::Running => Self::Running,
            forkyard::TaskStatus::Succeeded => Self::Succeeded,
            forkyard::TaskStatus::Failed => Self::Failed,
            forkyard::TaskStatus::Cancelled => Self::Cancelled,
        }
    }
}

/// SwarmAttempt is one attempt at a task. Times are since the swarm began.
#[derive(Debug, uniffi::Record)]
pub struct SwarmAttempt {
    /// Started is when its machine was asked for.
    pub started: Duration,
    /// Ready is when its machine ran; nil where it never did.
    pub ready: Option<Duration>,
    /// Ended is when it ended; nil while it is under way.
    pub ended: Option<Duration>,
    /// SandboxID is the machine; empty where there never was one.
    pub sandbox_id: String,
    /// Error says why it failed, for people; empty where it did not.
    pub error: String,
}

impl From<forkyard::AttemptReport> for SwarmAttempt {
    fn from(report: forkyard::AttemptReport) -> Self {
        let forkyard::AttemptReport { started, ready, ended, sandbox_id, error } = report;
        Self {
            started: length(started),
            ready: ready.map(length),
            ended: ended.map(length),
            sandbox_id: sandbox_id.unwrap_or_default(),
            error: error.unwrap_or_default(),
        }
    }
}

/// What became of a task.
#[derive(Debug, uniffi::Record)]
pub struct PlanTask {
    /// Its place among the tasks, from 0.
    pub index: i32,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its attempts, in their order.
    pub attempts: Vec<SwarmAttempt>,
}

impl From<forkyard::TaskReport> for PlanTask {
    fn from(report: forkyard::TaskReport) -> Self {
        let forkyard::TaskReport { index, status, attempts } = report;
        Self {
            index: number(index),
            status: status.into(),
            attempts: attempts.into_iter().map(Into::into).collect(),
        }
    }
}

/// SwarmProgress is how far a swarm has come: how many of its tasks stand where.
#[derive(Debug, uniffi::Record)]
pub struct SwarmProgress {
    /// Wall is the time since its begin.
    pub wall: Duration,
    /// Total is how many tasks there are.
    pub total: i32,
    /// Waiting is how many wait for their turn, the first or another.
    pub waiting: i32,
    /// Starting is how many have asked for a machine.
    pub starting: i32,
    /// Running is how many have a machine that runs.
    pub running: i32,
    /// Succeeded is how many are done.
    pub succeeded: i32,
    /// Failed is how many failed.
    pub failed: i32,
    /// Cancelled is how many were cancelled.
    pub cancelled: i32,
}

impl From<forkyard::SwarmProgress> for SwarmProgress {
    fn from(progress: forkyard::SwarmProgress) -> Self {
        let forkyard::SwarmProgress {
            wall_secs,
            total,
            waiting,
            starting,
            running,
            succeeded,
            failed,
            cancelled,
        } = progress;
        Self {
            wall: length(wall_secs),
            total: number(total),
            waiting: number(waiting),
            starting: number(starting),
            running: number(running),
            succeeded: number(succeeded),
            failed: number(failed),
            cancelled: number(cancelled),
        }
    }
}

/// What a swarm did.
#[derive(Debug, uniffi::Record)]
pub struct PlanReport {
    /// From its begin to its end.
    pub wall: Duration,
    /// What its attempts took in all.
    pub sequential: Duration,
    /// How many times faster it was than that.
    pub speedup: f64,
    /// The speed-up for each task that could be under way at once.
    pub efficiency: f64,
    /// Tasks that are done.
    pub succeeded: i32,
    /// Tasks that failed.
    pub failed: i32,
    /// Tasks that were cancelled.
    pub cancelled: i32,
    /// Each task, in the order in which they were given.
    pub tasks: Vec<PlanTask>,
}

impl From<forkyard::SwarmReport> for PlanReport {
    fn from(report: forkyard::SwarmReport) -> Self {
        let forkyard::SwarmReport {
            wall_secs,
            sequential_secs,
            speedup,
            efficiency,
            succeeded,
            failed,
            cancelled,
            tasks,
        } = report;
        Self {
            wall: length(wall_secs),
            sequential: length(sequential_secs),
            speedup,
            efficiency,
            succeeded: number(succeeded),
            failed: number(failed),
            cancelled: number(cancelled),
            tasks: tasks.into_iter().map(Into::into).collect(),
        }
    }
}

#[uniffi::export]
impl SwarmPlan {
    /// A plan for so many tasks; 0 at once stands for the default.
    #[uniffi::constructor]
    pub fn new(tasks: i32, concurrency: i32, retries: i32) -> Answer<Arc<Self>> {
        let defaults = SwarmPolicy::default();
        let policy = SwarmPolicy {
            concurrency: value::count("Concurrency", concurrency)?.unwrap_or(defaults.concurrency),
            retries: value::count("Retries", retries)?.unwrap_or(defaults.retries),
        };
        let tasks = value::count("the number of tasks", tasks)?.unwrap_or_default();
        Ok(Arc::new(Self { plan: Mutex::new(forkyard::SwarmPlan::new(tasks, policy)?) }))
    }

    /// The next task to begin, if one may begin now.
    pub fn next(&self, now: Duration) -> Answer<Option<i32>> {
        Ok(self.lock().next(now.as_secs_f64()).map(number))
    }

    /// A task's machine runs.
    pub fn ready(&self, index: i32, sandbox_id: String, now: Duration) -> Answer<()> {
        self.lock().ready(place(index)?, &sandbox_id, now.as_secs_f64());
        Ok(())
    }

    /// A task is done.
    pub fn succeeded(&self, index: i32, now: Duration) -> Answer<()> {
        self.lock().succeeded(place(index)?, now.as_secs_f64());
        Ok(())
    }

    /// A task's attempt failed; answers whether it is tried again. `is_final` where another attempt cannot help.
    pub fn failed(&self, index: i32, error: String, is_final: bool, now: Duration) -> Answer<bool> {
        let next = self.lock().failed(place(index)?, &error, is_final, now.as_secs_f64());
        Ok(next == AfterFailure::Retry)
    }

    /// Nothing more begins.
    pub fn cancel(&self, now: Duration) -> Answer<()> {
        self.lock().cancel(now.as_secs_f64());
        Ok(())
    }

    /// How far it has come.
    pub fn progress(&self, now: Duration) -> Answer<SwarmProgress> {
        Ok(self.lock().progress(now.as_secs_f64()).into())
    }

    /// What was done until now.
    pub fn report(&self, now: Duration) -> Answer<PlanReport> {
        Ok(self.lock().report(now.as_secs_f64()).into())
    }
}

impl SwarmPlan {
    fn lock(&self) -> MutexGuard<'_, forkyard::SwarmPlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(index: i32) -> Answer<usize> {
    Ok(value::count("a task's place", index)?.unwrap_or_default())
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn length(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or_default()
}
