use std::sync::Arc;

use forkyard::Handle;
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::call::Call;
use crate::value::{Json, Nothing};

/// A process in a machine, and a place in its output.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Process {
    handle: Handle,
    /// Locked while somebody reads: two readers share one place.
    reader: Arc<Mutex<forkyard::Process>>,
}

impl Process {
    pub fn new(process: forkyard::Process) -> Self {
        Self { handle: process.handle(), reader: Arc::new(Mutex::new(process)) }
    }
}

#[pymethods]
impl Process {
    #[getter]
    fn id(&self) -> &str {
        self.handle.id().as_str()
    }

    /// The next of its output: a word and what belongs to it; None after its end.
    fn next(&self) -> Call {
        let reader = self.reader.clone();
        Call::new(async move { reader.lock().await.next().await })
    }

    fn info(&self) -> Call {
        let handle = self.handle.clone();
        Call::new(async move { Json::new(&handle.info().await?) })
    }

    fn signal(&self, number: i32) -> Call {
        let handle = self.handle.clone();
        Call::new(async move { handle.signal(number).await.map(|()| Nothing) })
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
