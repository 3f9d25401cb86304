use std::collections::HashMap;
use std::sync::Arc;

use forkyard::runtime::run;
use forkyard::{SandboxListing, SandboxStatus as Status};
use tokio::sync::Mutex;

use crate::{Answer, Client, Error, SandboxInfo, value};

/// Which machines to list.
#[derive(Debug, uniffi::Record)]
pub struct ListFilter {
    /// Only those of this name.
    pub name: String,
    /// Only those in this state.
    pub status: String,
    /// Only those of this image.
    pub image: String,
    /// Only those with all of these labels.
    pub labels: HashMap<String, String>,
    /// Machines that one request fetches.
    pub page_size: i32,
}

const ALL: [Status; 7] = [
    Status::Pending,
    Status::Running,
    Status::Suspending,
    Status::Suspended,
    Status::Resuming,
    Status::Terminated,
    Status::Failed,
];

impl TryFrom<ListFilter> for forkyard::SandboxFilter {
    type Error = Error;

    fn try_from(filter: ListFilter) -> Answer<Self> {
        let ListFilter { name, status, image, labels, page_size } = filter;
        let status = value::text(status).map(|word| {
            let found = ALL.into_iter().find(|status| status.as_str() == word);
            found.ok_or_else(|| Error::invalid(format!("Status must be one of SandboxStatus, not '{word}'")))
        });
        Ok(Self {
            name: value::text(name),
            status: status.transpose()?,
            image: value::text(image),
            labels: labels.into_iter().collect(),
            page_size: value::count("PageSize", page_size)?,
        })
    }
}

/// Machines, fetched page by page.
#[derive(uniffi::Object)]
pub struct Listing {
    listing: Arc<Mutex<SandboxListing>>,
}

/// A page of machines.
#[derive(Debug, uniffi::Record)]
pub struct ListPage {
    /// The machines.
    pub sandboxes: Vec<SandboxInfo>,
}

#[uniffi::export]
impl Client {
    /// The machines that fit.
    pub fn listing(&self, filter: ListFilter) -> Answer<Arc<Listing>> {
        let listing = self.client.sandboxes(&filter.try_into()?)?;
        Ok(Arc::new(Listing { listing: Arc::new(Mutex::new(listing)) }))
    }
}

#[uniffi::export]
impl Listing {
    /// The next page; none after the last.
    pub async fn next_page(&self) -> Answer<Option<ListPage>> {
        let listing = self.listing.clone();
        let page = run(async move { listing.lock().await.next_page().await }).await?;
        Ok(page.map(|page| ListPage { sandboxes: page.into_iter().map(Into::into).collect() }))
    }
}
