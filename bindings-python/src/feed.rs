use std::sync::Arc;

use forkyard::{EventStream, FileEvent};
use pyo3::prelude::*;
use tokio::sync::{Mutex, watch};

use crate::call::Call;
use crate::value::{Json, Nothing};

/// What happens, as it happens.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Feed {
    source: Arc<Mutex<Option<Source>>>,
    closing: watch::Sender<bool>,
}

/// Where.
pub enum Source {
    /// In a folder.
    Folder(forkyard::Watch),
    /// To a machine.
    Sandbox(EventStream),
}

impl Source {
    async fn next(&mut self) -> forkyard::Result<Json> {
        match self {
            Self::Folder(watch) => Json::new(&watch.next().await?),
            Self::Sandbox(events) => Json::new(&events.next().await?),
        }
    }
}

impl Feed {
    pub fn new(source: Source) -> Self {
        Self { source: Arc::new(Mutex::new(Some(source))), closing: watch::Sender::new(false) }
    }
}

#[pymethods]
impl Feed {
    /// The next event as JSON; `null` after the last, or once it was closed.
    fn next(&self) -> Call {
        let (source, mut closing) = (self.source.clone(), self.closing.subscribe());
        Call::new(async move {
            let mut source = source.lock().await;
            let Some(source) = source.as_mut() else { return Json::new(&None::<FileEvent>) };
            tokio::select! {
                event = source.next() => event,
                _ = closing.wait_for(|closing| *closing) => Json::new(&None::<FileEvent>),
            }
        })
    }

    /// Ends it; a call for the next event that is under way ends too.
    fn close(&self) -> Call {
        let (source, closing) = (self.source.clone(), self.closing.clone());
        Call::new(async move {
            closing.send_replace(true);
            source.lock().await.take();
            Ok(Nothing)
        })
    }
}
