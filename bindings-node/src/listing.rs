use std::sync::Arc;

use forkyard::SandboxListing;
use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, Result};
use napi_derive::napi;
use tokio::sync::Mutex;

use crate::call::{Cancel, begin};
use crate::record::sandbox::SandboxInfo;

/// A list of machines that is fetched page by page.
#[napi]
pub struct Listing {
    listing: Arc<Mutex<SandboxListing>>,
}

impl Listing {
    pub fn new(listing: SandboxListing) -> Self {
        Self { listing: Arc::new(Mutex::new(listing)) }
    }
}

#[napi]
impl Listing {
    /// The next page; null after the last.
    #[napi(ts_return_type = "Promise<Array<SandboxInfo> | null>")]
    pub fn next_page<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Option<Vec<SandboxInfo>>>> {
        let listing = self.listing.clone();
        begin(env, cancel, async move {
            let page = listing.lock().await.next_page().await?;
            Ok(page.map(|page| page.into_iter().map(Into::into).collect()))
        })
    }
}
