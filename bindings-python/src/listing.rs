use std::sync::Arc;

use forkyard::SandboxListing;
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::call::Call;
use crate::value::Json;

/// A list of machines that is fetched page by page.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Listing {
    listing: Arc<Mutex<SandboxListing>>,
}

impl Listing {
    pub fn new(listing: SandboxListing) -> Self {
        Self { listing: Arc::new(Mutex::new(listing)) }
    }
}

#[pymethods]
impl Listing {
    /// The next page as JSON; `null` after the last.
    fn next_page(&self) -> Call {
        let listing = self.listing.clone();
        Call::new(async move { Json::new(&listing.lock().await.next_page().await?) })
    }
}
