//! Lists of machines, fetched page by page as they are read.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use forkyard_protocol::{SandboxPage, validate_label};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::client::{Client, SandboxInfo, SandboxStatus};
use crate::error::{Error, ErrorCode, Result};

/// Machines of one page, unless told otherwise.
const PAGE: u32 = 100;

/// Which machines to list: those that fit all that is said here. Default: all of the project's, ended ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxFilter {
    /// Only those of this name: at most one that has not ended.
    pub name: Option<String>,
    /// Only those in this state.
    pub status: Option<SandboxStatus>,
    /// Only those of this image, as it was asked for or by its digest.
    pub image: Option<String>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Machines that one call fetches, 1 to 1,000. Default: 100.
    pub page_size: Option<u32>,
}

/// A list of machines, newest first, of which a page is fetched whenever the one before is used up. A machine that is made
/// meanwhile is not in it; none comes twice.
pub struct SandboxListing {
    client: Client,
    path: String,
    cursor: Option<String>,
    is_last: bool,
    page: VecDeque<SandboxInfo>,
}

impl Client {
    /// The machines that fit, fetched as they are read. Fails with `invalid_argument` where no label can be as asked.
    pub fn sandboxes(&self, filter: &SandboxFilter) -> Result<SandboxListing> {
        let path = filter.path()?;
        Ok(SandboxListing { client: self.clone(), path, cursor: None, is_last: false, page: VecDeque::new() })
    }
}

impl SandboxListing {
    /// The next machine; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<SandboxInfo>> {
        while self.page.is_empty() {
            match self.next_page().await? {
                Some(page) => self.page = page.into(),
                None => return Ok(None),
            }
        }
        Ok(self.page.pop_front())
    }

    /// The next page, without what [`SandboxListing::next`] has fetched already; `None` after the last.
    pub async fn next_page(&mut self) -> Result<Option<Vec<SandboxInfo>>> {
        if self.is_last {
            return Ok(None);
        }
        let cursor = self.cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page: SandboxPage = self.client.get_json(&format!("{}{cursor}", self.path)).await?;
        self.is_last = page.next_cursor.is_none();
        self.cursor = page.next_cursor;
        Ok(Some(page.sandboxes))
    }

    /// All that are left.
    pub async fn all(mut self) -> Result<Vec<SandboxInfo>> {
        let mut all = Vec::from(std::mem::take(&mut self.page));
        while let Some(page) = self.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

impl SandboxFilter {
    fn path(&self) -> Result<String> {
        let mut path = format!("/sandboxes?limit={}", self.page_size.unwrap_or(PAGE));
        let mut add = |key: &str, value: &str| {
            // Writing into a string cannot fail.
            let _ = write!(path, "&{key}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        };
        if let Some(name) = &self.name {
            add("name", name);
        }
        if let Some(status) = self.status {
            add("status", status.as_str());
        }
        if let Some(image) = &self.image {
            add("image", image);
        }
        for (key, value) in &self.labels {
            // Here, since a key with a colon in it would reach the server as another.
            validate_label(key, value)
                .map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))?;
            add("label", &format!("{key}:{value}"));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_reaches_the_server_as_it_is() {
        let mut filter = SandboxFilter {
            name: Some("a".into()),
            status: Some(SandboxStatus::Running),
            image: Some("python:3.11".into()),
            labels: [("team/x".into(), "a:b&ü".into()), ("n".into(), "1".into())].into(),
            page_size: Some(7),
        };
        assert_eq!(
            filter.path().unwrap(),
            "/sandboxes?limit=7&name=a&status=running&image=python%3A3%2E11&label=n%3A1&label=team%2Fx%3Aa%3Ab%26%C3%BC"
        );
        assert_eq!(SandboxFilter::default().path().unwrap(), "/sandboxes?limit=100");
        filter.labels = [("a:b".into(), "c".into())].into();
        assert_eq!(filter.path().unwrap_err().code, ErrorCode::InvalidArgument);
    }
}
