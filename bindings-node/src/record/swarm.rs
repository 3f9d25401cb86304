use napi_derive::napi;

use super::mirror;

/// Where a swarm's task stands: it waits for its turn, the first or another; its machine was asked for; its machine runs,
/// and its job with it; it is done; it failed and is not tried again; the swarm was cancelled before it came to its end.
#[napi(string_enum = "snake_case")]
pub enum TaskStatus {
    Waiting,
    Starting,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

mirror!(TaskStatus = forkyard::TaskStatus { Waiting, Starting, Running, Succeeded, Failed, Cancelled });

/// One attempt at a task. Times are milliseconds since the swarm began.
#[napi(object, object_from_js = false)]
pub struct SwarmAttempt {
    /// When its machine was asked for.
    pub started_ms: f64,
    /// When its machine ran; absent where it never did.
    pub ready_ms: Option<f64>,
    /// When it ended; absent while it is under way.
    pub ended_ms: Option<f64>,
    /// The machine.
    pub sandbox_id: Option<String>,
    /// Why it failed, for people.
    pub error: Option<String>,
}

impl From<forkyard::AttemptReport> for SwarmAttempt {
    fn from(report: forkyard::AttemptReport) -> Self {
        let forkyard::AttemptReport { started, ready, ended, sandbox_id, error } = report;
        Self {
            started_ms: as_millis(started),
            ready_ms: ready.map(as_millis),
            ended_ms: ended.map(as_millis),
            sandbox_id,
            error,
        }
    }
}

/// What became of a task, but for what JavaScript alone can hold.
#[napi(object, object_from_js = false)]
pub struct TaskReport {
    /// Its place among the tasks, from 0.
    pub index: u32,
    /// Where it stands.
    pub status: TaskStatus,
    /// Its attempts, in their order.
    pub attempts: Vec<SwarmAttempt>,
}

impl From<forkyard::TaskReport> for TaskReport {
    fn from(report: forkyard::TaskReport) -> Self {
        let forkyard::TaskReport { index, status, attempts } = report;
        let attempts = attempts.into_iter().map(Into::into).collect();
        Self { index: count(index), status: status.into(), attempts }
    }
}

/// How far a swarm has come: how many of its tasks stand where.
#[napi(object, object_from_js = false)]
pub struct SwarmProgress {
    /// Milliseconds since its begin.
    pub wall_ms: f64,
    /// Tasks in all.
    pub total: u32,
    /// Tasks that wait for their turn, the first or another.
    pub waiting: u32,
    /// Tasks whose machine was asked for.
    pub starting: u32,
    /// Tasks whose machine runs.
    pub running: u32,
    /// Tasks that are done.
    pub succeeded: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// Tasks that were cancelled.
    pub cancelled: u32,
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
            wall_ms: as_millis(wall_secs),
            total: count(total),
            waiting: count(waiting),
            starting: count(starting),
            running: count(running),
            succeeded: count(succeeded),
            failed: count(failed),
            cancelled: count(cancelled),
        }
    }
}

/// What a swarm did, but for what JavaScript alone can hold.
#[napi(object, object_from_js = false)]
pub struct PlanReport {
    /// Milliseconds from its begin to its end.
    pub wall_ms: f64,
    /// Milliseconds that its attempts took in all: what they would have taken one after another, had each been as fast alone.
    /// Attempts that share processors are slower than alone.
    pub sequential_ms: f64,
    /// How many times faster it was than that.
    pub speedup: f64,
    /// The speed-up for each task that could be under way at once.
    pub efficiency: f64,
    /// Tasks that are done.
    pub succeeded: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// Tasks that were cancelled.
    pub cancelled: u32,
    /// Each task, in the order in which they were given.
    pub tasks: Vec<TaskReport>,
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
            wall_ms: as_millis(wall_secs),
            sequential_ms: as_millis(sequential_secs),
            speedup,
            efficiency,
            succeeded: count(succeeded),
            failed: count(failed),
            cancelled: count(cancelled),
            tasks: tasks.into_iter().map(Into::into).collect(),
        }
    }
}

fn as_millis(seconds: f64) -> f64 {
    seconds * 1000.0
}

/// A number of tasks: a swarm has a million at most.
fn count(tasks: usize) -> u32 {
    u32::try_from(tasks).unwrap_or(u32::MAX)
}
