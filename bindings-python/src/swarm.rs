use std::sync::{Mutex, MutexGuard, PoisonError};

use forkyard::{AfterFailure, ErrorCode, SwarmPolicy};
use pyo3::prelude::*;

use crate::error::to_py_err;
use crate::value::Json;

/// What a swarm does next; Python's half does it. Times are seconds since the swarm began.
#[pyclass(module = "forkyard._native", frozen)]
pub struct SwarmPlan {
    plan: Mutex<forkyard::SwarmPlan>,
}

#[pymethods]
impl SwarmPlan {
    #[new]
    fn new(py: Python<'_>, tasks: usize, concurrency: usize, retries: u32) -> PyResult<Self> {
        let plan = forkyard::SwarmPlan::new(tasks, SwarmPolicy { concurrency, retries });
        Ok(Self { plan: Mutex::new(plan.map_err(|error| to_py_err(py, error))?) })
    }

    /// The next task to begin, if one may begin now.
    fn next(&self, now: f64) -> Option<usize> {
        self.lock().next(now)
    }

    /// A task's machine runs.
    fn ready(&self, index: usize, sandbox_id: &str, now: f64) {
        self.lock().ready(index, sandbox_id, now);
    }

    /// A task is done.
    fn succeeded(&self, index: usize, now: f64) {
        self.lock().succeeded(index, now);
    }

    /// A task's attempt failed; answers whether it is tried again. `refused` is the code with which its machine was refused, if
    /// it was: what a retry of the request cannot change, another attempt cannot either.
    fn failed(&self, index: usize, error: &str, refused: Option<&str>, now: f64) -> bool {
        let code = refused.and_then(|code| serde_json::from_value::<ErrorCode>(code.into()).ok());
        let is_final = code.is_some_and(|code| !code.is_retryable());
        self.lock().failed(index, error, is_final, now) == AfterFailure::Retry
    }

    /// Nothing more begins.
    fn cancel(&self, now: f64) {
        self.lock().cancel(now);
    }

    /// How far it has come, as JSON.
    fn progress(&self, py: Python<'_>, now: f64) -> PyResult<String> {
        let progress = self.lock().progress(now);
        Json::new(&progress).map(|json| json.0).map_err(|error| to_py_err(py, error))
    }

    /// What was done until now, as JSON.
    fn report(&self, py: Python<'_>, now: f64) -> PyResult<String> {
        let report = self.lock().report(now);
        Json::new(&report).map(|json| json.0).map_err(|error| to_py_err(py, error))
    }
}

impl SwarmPlan {
    fn lock(&self) -> MutexGuard<'_, forkyard::SwarmPlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
