use std::sync::Arc;

use forkyard::{Handle, PtySize};
use pyo3::prelude::*;
use tokio::sync::{Mutex, Notify};

use crate::call::Call;
use crate::error::invalid;
use crate::value::{Json, Nothing};

/// A process in a machine, and a place in its output.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Process {
    handle: Handle,
    /// Locked while somebody reads: two readers share one place.
    reader: Arc<Mutex<forkyard::Process>>,
    /// Ends a read that is under way.
    let_go: Arc<Notify>,
}

impl Process {
    pub fn new(process: forkyard::Process) -> Self {
        Self { handle: process.handle(), reader: Arc::new(Mutex::new(process)), let_go: Arc::default() }
    }
}

#[pymethods]
impl Process {
    #[getter]
    fn id(&self) -> &str {
        self.handle.id().as_str()
    }

    /// The next of its output: a word and what belongs to it; None after its end, or if it was let go of.
    fn next(&self) -> Call {
        let (reader, let_go) = (self.reader.clone(), self.let_go.clone());
        Call::new(async move {
            let mut reader = reader.lock().await;
            tokio::select! {
                event = reader.next() => event,
                () = let_go.notified() => Ok(None),
            }
        })
    }

    fn info(&self) -> Call {
        let handle = self.handle.clone();
        Call::new(async move { Json::new(&handle.info().await?) })
    }

    fn signal(&self, number: i32) -> Call {
        let handle = self.handle.clone();
        Call::new(async move { handle.signal(number).await.map(|()| Nothing) })
    }

    fn resize(&self, py: Python<'_>, rows: i64, cols: i64) -> PyResult<Call> {
        let size = PtySize { rows: side(py, "rows", rows)?, cols: side(py, "cols", cols)? };
        let handle = self.handle.clone();
        Ok(Call::new(async move { handle.resize(size).await.map(|()| Nothing) }))
    }

    /// Lets go of its output; a read that is under way ends.
    fn detach(&self) -> Call {
        let (reader, let_go) = (self.reader.clone(), self.let_go.clone());
        Call::new(async move {
            let_go.notify_waiters();
            reader.lock().await.detach();
            Ok(Nothing)
        })
    }

    fn write_stdin(&self, data: Vec<u8>) -> Call {
        let handle = self.handle.clone();
        Call::new(async move { handle.write_stdin(data).await.map(|()| Nothing) })
    }

    fn close_stdin(&self) -> Call {
        let handle = self.handle.clone();
        Call::new(async move { handle.close_stdin().await.map(|()| Nothing) })
    }

    /// Kills it without waiting for that: for code that is being cancelled itself.
    fn kill_in_background(&self) {
        self.handle.kill_in_background();
    }
}

/// A side of a terminal. What is out of the core's range is refused there.
fn side(py: Python<'_>, name: &str, value: i64) -> PyResult<u16> {
    u16::try_from(value).map_err(|_| invalid(py, format!("{name} must be between 1 and 4096, not {value}")))
}
