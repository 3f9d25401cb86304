//! One call into the core: awaited by asyncio or waited for by a thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::error::to_py_err;
use crate::fork_guard;
use crate::waiter::Waiter;

/// How long a waiting thread sleeps before it looks for Ctrl-C.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);

/// Makes the Python value out of what a call answered; runs where Python does.
pub type Convert = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>> + Send>;

/// How a call ended.
pub type Outcome = Result<Convert, forkyard::Error>;

/// What is still to be done for a call.
pub type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Something a call can answer with.
pub trait ToPython: Send + 'static {
    /// The value as Python sees it.
    fn to_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>>;
}

/// A call that was made and not begun: `await` it in asyncio, or `wait()` for it in a thread, once.
///
/// Nothing happens before that. Cancelling the awaiting task, interrupting the waiting thread or dropping either
/// drops the work.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Call {
    work: Mutex<Option<Work>>,
}

impl Call {
    /// A call that does what the future does.
    pub fn new<T, F>(future: F) -> Self
    where
        T: ToPython,
        F: Future<Output = Result<T, forkyard::Error>> + Send + 'static,
    {
        let work = async move {
            let value = future.await?;
            let converter: Convert = Box::new(move |py| value.to_python(py));
            Ok(converter)
        };
        Self { work: Mutex::new(Some(Box::pin(work))) }
    }

    fn take(&self) -> PyResult<Work> {
        fork_guard::check()?;
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.ok_or_else(|| PyRuntimeError::new_err("a call can be awaited or waited for only once"))
    }
}

#[pymethods]
impl Call {
    fn __await__(&self, py: Python<'_>) -> PyResult<Waiter> {
        Waiter::start(py, self.take()?)
    }

    /// Blocks this thread until the call has ended; other threads of Python go on.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut work = self.take()?;
        loop {
            let outcome = py.detach(|| {
                // Made inside: a timer belongs to the runtime that it is made in.
                forkyard::runtime::handle()
                    .block_on(async { tokio::time::timeout(SIGNAL_CHECK, &mut work).await })
            });
            match outcome {
                Ok(outcome) => return convert(py, outcome),
                Err(_) => py.check_signals()?,
            }
        }
    }

    fn __repr__(&self) -> &'static str {
        let waiting = self.work.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if waiting { "<Call: not begun>" } else { "<Call: begun>" }
    }
}

/// The Python value or exception for how a call ended.
pub fn convert(py: Python<'_>, outcome: Outcome) -> PyResult<Bound<'_, PyAny>> {
    match outcome {
        Ok(value) => value(py),
        Err(error) => Err(to_py_err(py, error)),
    }
}
