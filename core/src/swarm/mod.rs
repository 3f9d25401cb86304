//! One job on many machines.

mod plan;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

pub use self::plan::{
    AfterFailure, AttemptReport, SwarmPlan, SwarmPolicy, SwarmProgress, SwarmReport, TaskReport, TaskStatus,
};
use crate::client::{Client, CreateSandbox};
use crate::error::{Error, ErrorCode, Result};
use crate::sandbox::Sandbox;

/// How long a swarm's machine waits for room in line, unless its request says otherwise: a burst beyond the budgets takes
/// longer, it does not fail.
const QUEUE_TIMEOUT_SECS: u64 = 600;

/// Told after each change.
type OnProgress = Arc<dyn Fn(&SwarmProgress) + Send + Sync>;

/// One job on many machines, each task on one of its own: bounded in how many are under way at once, and with an error in one
/// harming no other.
#[derive(Clone)]
pub struct Swarm {
    client: Client,
    machine: CreateSandbox,
    policy: SwarmPolicy,
    task_timeout: Option<Duration>,
    on_progress: Option<OnProgress>,
}

/// What a swarm brought.
#[derive(Debug)]
pub struct SwarmOutcome<R> {
    /// Each task's result, or why its last attempt failed, in the order in which the tasks were given.
    pub results: Vec<Result<R>>,
    /// What it did.
    pub report: SwarmReport,
}

impl Client {
    /// A swarm whose tasks each get a machine like this: made of an image, or forked from a snapshot.
    pub fn swarm(&self, machine: CreateSandbox) -> Swarm {
        Swarm {
            client: self.clone(),
            machine,
            policy: SwarmPolicy::default(),
            task_timeout: None,
            on_progress: None,
        }
    }
}

impl Swarm {
    /// Tasks that are under way at once. Default: 8.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.policy.concurrency = concurrency;
        self
    }

    /// How often a task that failed is tried again, each time in a new machine. Default: 0.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.policy.retries = retries;
        self
    }

    /// How long one attempt may take once its machine runs. Default: for ever.
    #[must_use]
    pub fn task_timeout(mut self, task_timeout: Duration) -> Self {
        self.task_timeout = Some(task_timeout);
        self
    }

    /// Called after each change; what it does holds up the swarm.
    #[must_use]
    pub fn on_progress(mut self, on_progress: impl Fn(&SwarmProgress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(on_progress));
        self
    }

    /// Runs the job on each task and answers when all have ended, well or not. Dropped, it ends all machines that it made.
    /// Fails with `invalid_argument` before anything is made where the request or the policy is out of range.
    pub async fn run<T, R, F>(
        mut self,
        tasks: Vec<T>,
        job: impl Fn(Sandbox, T) -> F,
    ) -> Result<SwarmOutcome<R>>
    where
        T: Clone,
        F: Future<Output = Result<R>>,
    {
        if self.machine.queue_timeout_secs == 0 {
            self.machine.queue_timeout_secs = QUEUE_TIMEOUT_SECS;
        }
        self.machine.validate()?;
        let plan = Mutex::new(SwarmPlan::new(tasks.len(), self.policy)?);
        let began = Instant::now();
        let now = || began.elapsed().as_secs_f64();
        let mut results: Vec<Option<Result<R>>> = tasks.iter().map(|_| None).collect();
        let tell = |change: &mut dyn FnMut(&mut SwarmPlan)| {
            let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut plan);
            if let Some(on_progress) = &self.on_progress {
                on_progress(&plan.progress(now()));
            }
        };
        let mut under_way = FuturesUnordered::new();
        loop {
            loop {
                let mut next = None;
                tell(&mut |plan| next = plan.next(now()));
                let Some(index) = next else { break };
                let (task, tell, job, swarm) = (tasks[index].clone(), &tell, &job, &self);
                under_way.push(async move {
                    let is_ready = |id: &str| tell(&mut |plan| plan.ready(index, id, now()));
                    (index, swarm.attempt(task, job, is_ready).await)
                });
            }
            let Some((index, outcome)) = under_way.next().await else { break };
            tell(&mut |plan| match &outcome {
                Ok(_) => plan.succeeded(index, now()),
                Err(Failure { error, is_final }) => {
                    plan.failed(index, &error.message, *is_final, now());
                }
            });
            results[index] = Some(outcome.map_err(|failure| failure.error));
        }
        drop(under_way);
        let report = plan.lock().unwrap_or_else(PoisonError::into_inner).report(now());
        let never = || Err(Error::new(ErrorCode::Internal, "the task was never begun"));
        Ok(SwarmOutcome { results: results.into_iter().map(|it| it.unwrap_or_else(never)).collect(), report })
    }

    async fn attempt<T, R, F>(
        &self,
        task: T,
        job: &impl Fn(Sandbox, T) -> F,
        is_ready: impl Fn(&str),
    ) -> std::result::Result<R, Failure>
    where
        F: Future<Output = Result<R>>,
    {
        let made = self.client.create(self.machine.clone()).await;
        let sandbox = made.map_err(|error| Failure { is_final: !error.is_retryable(), error })?;
        let lease = Lease(Some(sandbox.clone()));
        is_ready(sandbox.id());
        let working = job(sandbox.clone(), task);
        let outcome = match self.task_timeout {
            None => working.await,
            Some(limit) => timeout(limit, working).await.unwrap_or_else(|_| {
                let message = format!("the task took longer than {} s", limit.as_secs_f64());
                Err(Error::new(ErrorCode::Timeout, message))
            }),
        };
        lease.end().await;
        outcome.map_err(|error| Failure { error, is_final: false })
    }
}

struct Failure {
    error: Error,
    /// Whether another attempt cannot help.
    is_final: bool,
}

/// A machine that lasts as long as its task.
struct Lease(Option<Sandbox>);

impl Lease {
    /// Ends the machine and waits for it, so that its room is free for the next.
    async fn end(mut self) {
        if let Some(sandbox) = &self.0
            && let Err(error) = sandbox.terminate().await
        {
            tracing::debug!(sandbox = sandbox.id(), %error, "a swarm's machine could not be ended");
        }
        self.0 = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sandbox) = self.0.take() {
            crate::runtime::spawn_cleanup(async move { sandbox.terminate().await.map(drop) });
        }
    }
}
