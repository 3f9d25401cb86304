use forkyard_protocol::{ErrorCode, PoolList};
pub use forkyard_protocol::{Pool as PoolInfo, PoolId, PoolSpec};
use http::Method;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::http::Request;

impl Client {
    /// Has machines of one kind kept ready: [`Client::create`] hands one of them out where it asks for such a machine. Not tried
    /// again after a failed connection: a second pool would come of it.
    pub async fn create_pool(&self, spec: PoolSpec) -> Result<PoolInfo> {
        spec.validate()?;
        let mut call = Request::new(Method::POST, "/pools").json(&spec)?;
        call.repeatable = false;
        self.inner.http.call(&call, self.deadline()).await
    }

    /// A pool, with its machines counted, by its id.
    pub async fn pool(&self, id: &str) -> Result<PoolInfo> {
        self.get_json(&path(id)?).await
    }

    /// All pools of the project, newest first.
    pub async fn pools(&self) -> Result<Vec<PoolInfo>> {
        Ok(self.get_json::<PoolList>("/pools").await?.pools)
    }

    /// Has a pool keep something else; machines that wait in it and are of another kind are ended.
    pub async fn change_pool(&self, id: &str, spec: PoolSpec) -> Result<PoolInfo> {
        spec.validate()?;
        let call = Request::new(Method::PUT, path(id)?).json(&spec)?;
        self.inner.http.call(&call, self.deadline()).await
    }

    /// Deletes a pool and ends the machines that wait in it; those that were claimed go on. Deleting one that is gone fails with
    /// `not_found`.
    pub async fn delete_pool(&self, id: &str) -> Result<()> {
        let request = Request::new(Method::DELETE, path(id)?);
        self.inner.http.bytes(&request, self.deadline()).await.map(drop)
    }
}

fn path(id: &str) -> Result<String> {
    let id = PoolId::parse(id).map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))?;
    Ok(format!("/pools/{id}"))
}
