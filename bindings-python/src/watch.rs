use std::sync::Arc;

use pyo3::prelude::*;
use tokio::sync::{Mutex, Notify};

use crate::call::Call;
use crate::value::{Json, Nothing};

/// What happens in a folder, as it happens.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Watch {
    watch: Arc<Mutex<Option<forkyard::Watch>>>,
    closing: Arc<Notify>,
}

impl Watch {
    pub fn new(watch: forkyard::Watch) -> Self {
        Self { watch: Arc::new(Mutex::new(Some(watch))), closing: Arc::default() }
    }
}

#[pymethods]
impl Watch {
    /// The next event as JSON; `null` after the last, or once it was closed.
    fn next(&self) -> Call {
        let (watch, closing) = (self.watch.clone(), self.closing.clone());
        Call::new(async move {
            let mut watch = watch.lock().await;
            let Some(watch) = watch.as_mut() else { return Json::new(&None::<forkyard::FileEvent>) };
            tokio::select! {
                event = watch.next() => Json::new(&event?),
                () = closing.notified() => Json::new(&None::<forkyard::FileEvent>),
            }
        })
    }

    /// Ends it; a call for the next event that is under way ends too.
    fn close(&self) -> Call {
        let (watch, closing) = (self.watch.clone(), self.closing.clone());
        Call::new(async move {
            closing.notify_waiters();
            watch.lock().await.take();
            Ok(Nothing)
        })
    }
}
