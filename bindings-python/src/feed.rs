use forkyard::{EventStream, SharedFeed, Watch};
use pyo3::prelude::*;

use crate::call::Call;
use crate::value::{Json, Nothing};

/// What happens, as it happens.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Feed {
    source: Source,
}

/// Where.
#[derive(Clone)]
enum Source {
    /// In a folder.
    Folder(SharedFeed<Watch>),
    /// To a machine.
    Sandbox(SharedFeed<EventStream>),
}

impl Feed {
    pub fn of_folder(watch: Watch) -> Self {
        Self { source: Source::Folder(SharedFeed::new(watch)) }
    }

    pub fn of_sandbox(events: EventStream) -> Self {
        Self { source: Source::Sandbox(SharedFeed::new(events)) }
    }
}

#[pymethods]
impl Feed {
    /// The next event as JSON; `null` after the last, or once it was closed.
    fn next(&self) -> Call {
        let source = self.source.clone();
        Call::new(async move {
            match source {
                Source::Folder(watch) => Json::new(&watch.next().await?),
                Source::Sandbox(events) => Json::new(&events.next().await?),
            }
        })
    }

    /// Ends it; a call for the next event that is under way ends too.
    fn close(&self) -> Call {
        let source = self.source.clone();
        Call::new(async move {
            match source {
                Source::Folder(watch) => watch.close().await,
                Source::Sandbox(events) => events.close().await,
            }
            Ok(Nothing)
        })
    }
}
