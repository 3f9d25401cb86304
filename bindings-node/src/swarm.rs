use forkyard::{AfterFailure, ErrorCode, SwarmPolicy};
use napi::{Env, Result};
use napi_derive::napi;

use crate::error::to_js_error;
use crate::record::swarm::{PlanReport, SwarmProgress};
use crate::value::whole;

/// What a swarm does next; `lib/swarm.ts` does it. Times are milliseconds since the swarm began.
#[napi]
pub struct SwarmPlan {
    plan: forkyard::SwarmPlan,
}

#[napi]
impl SwarmPlan {
    #[napi(constructor)]
    pub fn new(env: Env, tasks: u32, concurrency: f64, retries: f64) -> Result<Self> {
        let make = || {
            let policy = SwarmPolicy {
                concurrency: usize::try_from(whole::<u32>("concurrency", concurrency)?).unwrap_or(usize::MAX),
                retries: whole("retries", retries)?,
            };
            forkyard::SwarmPlan::new(tasks as usize, policy)
        };
        Ok(Self { plan: make().map_err(|error| to_js_error(env, error))? })
    }

    /// The next task to begin, if one may begin now.
    #[napi]
    pub fn next(&mut self, now: f64) -> Option<u32> {
        self.plan.next(now / 1000.0).and_then(|index| u32::try_from(index).ok())
    }

    /// A task's machine runs.
    #[napi]
    pub fn ready(&mut self, index: u32, sandbox_id: String, now: f64) {
        self.plan.ready(index as usize, &sandbox_id, now / 1000.0);
    }

    /// A task is done.
    #[napi]
    pub fn succeeded(&mut self, index: u32, now: f64) {
        self.plan.succeeded(index as usize, now / 1000.0);
    }

    /// A task's attempt failed; answers whether it is tried again. `refused` is the code with which its machine was refused,
    /// if it was: what a retry of the request cannot change, another attempt cannot either.
    #[napi]
    pub fn failed(&mut self, index: u32, error: String, refused: Option<String>, now: f64) -> bool {
        let code = refused.and_then(|code| serde_json::from_value::<ErrorCode>(code.into()).ok());
        let is_final = code.is_some_and(|code| !code.is_retryable());
        self.plan.failed(index as usize, &error, is_final, now / 1000.0) == AfterFailure::Retry
    }

    /// Nothing more begins.
    #[napi]
    pub fn cancel(&mut self, now: f64) {
        self.plan.cancel(now / 1000.0);
    }

    /// How far it has come.
    #[napi]
    pub fn progress(&self, now: f64) -> SwarmProgress {
        self.plan.progress(now / 1000.0).into()
    }

    /// What was done until now.
    #[napi]
    pub fn report(&self, now: f64) -> PlanReport {
        self.plan.report(now / 1000.0).into()
    }
}
