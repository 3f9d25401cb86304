//! How asyncio waits for a call: a future of the loop for each, and one wake-up of the loop for many.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::task::AbortHandle;

use crate::call::{Outcome, Work, convert};

/// Most futures that one turn of the loop completes: each makes a task run in the next turn, and the loop must get
/// to its other work in between.
const DRAIN_LIMIT: usize = 64;

/// Where the runtime leaves a call's outcome for the loop.
#[derive(Default)]
struct Slot {
    outcome: Mutex<Option<Outcome>>,
    /// The loop's future; gone once nobody waits for it any more.
    future: Mutex<Option<Py<PyAny>>>,
}

/// The calls of one event loop that have ended and whose tasks do not know it yet.
///
/// The runtime's threads wake the loop by a byte through a socket, never by a call into Python: they need not wait for
/// the interpreter then, and an interpreter that is shutting down does not find them inside.
struct Queue {
    ended: Mutex<Ended>,
    bell: UnixStream,
}

#[derive(Default)]
struct Ended {
    slots: VecDeque<Arc<Slot>>,
    /// Whether the loop was woken and has not come yet.
    woken: bool,
}

/// One event loop's end of its queue. Called in the loop, it completes what has ended.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Lane {
    queue: Arc<Queue>,
    bell: UnixStream,
}

/// An iterator as `await` wants it: yields the loop's future, then returns the call's value.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Waiter {
    slot: Arc<Slot>,
    task: AbortHandle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delivers the outcome when it is dropped, so that a call ends for its caller even where its task panicked.
struct Delivery {
    slot: Arc<Slot>,
    queue: Arc<Queue>,
    outcome: Option<Outcome>,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(forkyard::Error::new(
                forkyard::ErrorCode::Internal,
                "the call's task ended without an answer",
            ))
        });
        *lock(&self.slot.outcome) = Some(outcome);
        self.queue.push(Arc::clone(&self.slot));
    }
}

impl Queue {
    /// Adds what has ended; rings where the loop does not know yet that there is something.
    fn push(&self, slot: Arc<Slot>) {
        let mut ended = lock(&self.ended);
        ended.slots.push_back(slot);
        if !std::mem::replace(&mut ended.woken, true) {
            // One byte into an empty socket fits. Where the loop is gone, so is everybody who waited.
            let _ = (&self.bell).write(&[1]);
        }
    }
}

impl Waiter {
    /// Begins the work on the core's runtime for the event loop that runs in this thread.
    pub fn start(py: Python<'_>, work: Work) -> PyResult<Self> {
        let event_loop = running_loop(py)?;
        let queue = Lane::of(&event_loop)?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let slot = Arc::new(Slot { outcome: Mutex::default(), future: Mutex::new(Some(future.unbind())) });
        let delivery = Delivery { slot: Arc::clone(&slot), queue, outcome: None };
        let task = forkyard::runtime::handle().spawn(async move {
            // Moved in whole: otherwise only its field would be, and its drop would come at once.
            let mut delivery = delivery;
            delivery.outcome = Some(work.await);
        });
        Ok(Self { slot, task: task.abort_handle() })
    }
}

#[pymethods]
impl Waiter {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(outcome) = lock(&self.slot.outcome).take() {
            let value = convert(py, outcome)?;
            // In a tuple of its own: a bare tuple would be taken for the exception's several arguments.
            return Err(PyStopIteration::new_err((value.unbind(),)));
        }
        let future = lock(&self.slot.future).as_ref().map(|future| future.clone_ref(py).into_bound(py));
        let Some(future) = future else {
            return Err(PyRuntimeError::new_err("the call has already ended"));
        };
        if future.call_method0(intern!(py, "done"))?.is_truthy()? {
            // Only a cancellation ends the future before the outcome is there.
            return future.call_method0(intern!(py, "result"));
        }
        // What tells asyncio that this is a future to wait for and not a value yielded by mistake.
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        Ok(future)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.slot.future).take();
    }
}

#[pymethods]
impl Lane {
    /// Completes what has ended; what is more than one turn's worth waits for the next.
    fn __call__(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let (batch, more) = this.get().take_batch()?;
        for slot in batch {
            let Some(future) = lock(&slot.future).take() else { continue };
            let future = future.bind(py);
            // A cancelled one is done already.
            if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
                future.call_method1(intern!(py, "set_result"), (py.None(),))?;
            }
        }
        if more {
            running_loop(py)?.call_method1(intern!(py, "call_soon"), (this,))?;
        }
        Ok(())
    }
}

impl Lane {
    /// One turn's worth of what has ended, and whether there is more.
    fn take_batch(&self) -> std::io::Result<(Vec<Arc<Slot>>, bool)> {
        let mut ended = lock(&self.queue.ended);
        match (&self.bell).read(&mut [0; 16]) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        let count = ended.slots.len().min(DRAIN_LIMIT);
        let batch = ended.slots.drain(..count).collect();
        ended.woken = !ended.slots.is_empty();
        Ok((batch, ended.woken))
    }

    /// The loop's queue, made at its first call and forgotten with the loop.
    fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Queue>> {
        static LANES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = event_loop.py();
        let lanes = LANES.get_or_try_init(py, || {
            let weakref = py.import(intern!(py, "weakref"))?;
            weakref.call_method0(intern!(py, "WeakKeyDictionary")).map(Bound::unbind)
        })?;
        let lanes = lanes.bind(py);
        let known = lanes.call_method1(intern!(py, "get"), (event_loop,))?;
        if !known.is_none() {
            return Ok(Arc::clone(&known.cast_into::<Self>()?.get().queue));
        }
        let (bell, ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        let queue = Arc::new(Queue { ended: Mutex::default(), bell: ringer });
        let fd = bell.as_raw_fd();
        let lane = Bound::new(py, Self { queue: Arc::clone(&queue), bell })?;
        event_loop.call_method1(intern!(py, "add_reader"), (fd, &lane))?;
        lanes.set_item(event_loop, lane)?;
        Ok(queue)
    }
}

/// The event loop that runs in this thread; an error where none does.
fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    GET.import(py, "asyncio", "get_running_loop")?.call0()
}
