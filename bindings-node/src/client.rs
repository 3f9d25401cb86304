use forkyard::InvalidId;
use napi::bindgen_prelude::PromiseRaw;
use napi::{Env, Result};
use napi_derive::napi;

use crate::call::{Cancel, begin};
use crate::error::to_js_error;
use crate::listing::Listing;
use crate::record::key::{CreatedKey, KeyInfo, KeyRequest};
use crate::record::network::NetworkRequest;
use crate::record::pool::{PoolInfo, PoolRequest};
use crate::record::sandbox::{CreateRequest, SandboxFilter, SandboxInfo};
use crate::record::server::{ImageInfo, ServerInfo};
use crate::record::snapshot::{RetentionPolicy, SnapshotInfo};
use crate::sandbox::Sandbox;
use crate::value::{invalid, millis, whole};

/// How to reach a server.
#[napi(object, object_to_js = false)]
pub struct ClientOptions {
    /// The server's address. Default: `FORKYARD_URL`, else `http://127.0.0.1:7070`.
    pub url: Option<String>,
    /// The API key. Default: `FORKYARD_API_KEY`, else the file that a server on this host wrote at its first start.
    pub api_key: Option<String>,
    /// Milliseconds that each call may take in all, retries included. Default: 60,000; making a machine: 120,000.
    pub timeout_ms: Option<f64>,
}

/// One server, and one pool of connections to it.
#[napi]
pub struct Client {
    client: forkyard::Client,
}

fn all<A, B: From<A>>(records: Vec<A>) -> Vec<B> {
    records.into_iter().map(Into::into).collect()
}

/// Methods that ask the core's client and answer with what it answers, as JavaScript sees it.
#[napi]
impl Client {
    #[napi(constructor)]
    pub fn new(env: Env, options: ClientOptions) -> Result<Self> {
        let ClientOptions { url, api_key, timeout_ms } = options;
        let mut builder = forkyard::Client::builder();
        if let Some(url) = url {
            builder = builder.url(url);
        }
        if let Some(api_key) = api_key {
            builder = builder.api_key(api_key);
        }
        let timeout = timeout_ms.map(|value| millis("timeoutMs", value)).transpose();
        if let Some(timeout) = timeout.map_err(|error| to_js_error(env, error))? {
            builder = builder.timeout(timeout);
        }
        // Reads a file at the most.
        let client = builder.build().map_err(|error| to_js_error(env, error))?;
        Ok(Self { client })
    }

    #[napi]
    pub fn create<'env>(
        &self,
        env: &'env Env,
        request: CreateRequest,
        network: NetworkRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Sandbox>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(Sandbox::new(client.create(request.with(network)?).await?)) })
    }

    #[napi]
    pub fn get_or_create<'env>(
        &self,
        env: &'env Env,
        name: String,
        request: CreateRequest,
        network: NetworkRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Sandbox>> {
        let client = self.client.clone();
        begin(env, cancel, async move {
            Ok(Sandbox::new(client.get_or_create(&name, request.with(network)?).await?))
        })
    }

    #[napi]
    pub fn connect<'env>(
        &self,
        env: &'env Env,
        id_or_name: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Sandbox>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(Sandbox::new(client.connect(&id_or_name).await?)) })
    }

    #[napi]
    pub fn get<'env>(
        &self,
        env: &'env Env,
        sandbox_id: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxInfo>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.get(&sandbox_id).await?.into()) })
    }

    #[napi]
    pub fn list<'env>(
        &self,
        env: &'env Env,
        filter: SandboxFilter,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<SandboxInfo>>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(all(client.sandboxes(&filter.paged(1000))?.all().await?)) })
    }

    #[napi]
    pub fn listing(&self, env: Env, filter: SandboxFilter, page_size: f64) -> Result<Listing> {
        let listing = whole("pageSize", page_size)
            .and_then(|page_size| self.client.sandboxes(&filter.paged(page_size)));
        listing.map(Listing::new).map_err(|error| to_js_error(env, error))
    }

    #[napi]
    pub fn terminate<'env>(
        &self,
        env: &'env Env,
        sandbox_id: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SandboxInfo>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.terminate(&sandbox_id).await?.into()) })
    }

    #[napi]
    pub fn snapshot<'env>(
        &self,
        env: &'env Env,
        snapshot_id: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, SnapshotInfo>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.snapshot(&snapshot_id).await?.into()) })
    }

    #[napi]
    pub fn snapshots<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<SnapshotInfo>>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(all(client.snapshots().await?)) })
    }

    #[napi]
    pub fn delete_snapshot<'env>(
        &self,
        env: &'env Env,
        snapshot_id: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ()>> {
        let client = self.client.clone();
        begin(env, cancel, async move { client.delete_snapshot(&snapshot_id).await })
    }

    #[napi]
    pub fn retention<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, RetentionPolicy>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.retention().await?.into()) })
    }

    #[napi]
    pub fn set_retention<'env>(
        &self,
        env: &'env Env,
        policy: RetentionPolicy,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, RetentionPolicy>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.set_retention(&policy.try_into()?).await?.into()) })
    }

    #[napi]
    pub fn create_pool<'env>(
        &self,
        env: &'env Env,
        request: PoolRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, PoolInfo>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.create_pool(request.try_into()?).await?.into()) })
    }

    #[napi]
    pub fn pool<'env>(
        &self,
        env: &'env Env,
        pool_id: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, PoolInfo>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.pool(&pool_id).await?.into()) })
    }

    #[napi]
    pub fn pools<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<PoolInfo>>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(all(client.pools().await?)) })
    }

    #[napi]
    pub fn change_pool<'env>(
        &self,
        env: &'env Env,
        pool_id: String,
        request: PoolRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, PoolInfo>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.change_pool(&pool_id, request.try_into()?).await?.into()) })
    }

    #[napi]
    pub fn delete_pool<'env>(
        &self,
        env: &'env Env,
        pool_id: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ()>> {
        let client = self.client.clone();
        begin(env, cancel, async move { client.delete_pool(&pool_id).await })
    }

    #[napi]
    pub fn images<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<ImageInfo>>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(all(client.images().await?)) })
    }

    #[napi]
    pub fn server_info<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ServerInfo>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.server_info().await?.into()) })
    }

    #[napi]
    pub fn create_key<'env>(
        &self,
        env: &'env Env,
        request: KeyRequest,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, CreatedKey>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(client.create_key(&request.try_into()?).await?.into()) })
    }

    #[napi]
    pub fn list_keys<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<KeyInfo>>> {
        let client = self.client.clone();
        begin(env, cancel, async move { Ok(all(client.list_keys().await?)) })
    }

    #[napi]
    pub fn revoke_key<'env>(
        &self,
        env: &'env Env,
        key_id: String,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ()>> {
        let client = self.client.clone();
        begin(env, cancel, async move {
            let key_id = key_id.parse().map_err(|error: InvalidId| invalid(error.to_string()))?;
            client.revoke_key(&key_id).await
        })
    }
}
