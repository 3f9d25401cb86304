use std::time::Duration;

use forkyard::{SandboxFilter, SandboxListing};
use pyo3::prelude::*;

use crate::call::Call;
use crate::error::{invalid, to_py_err};
use crate::listing::Listing;
use crate::sandbox::Sandbox;
use crate::value::{Json, Nothing, Object};

/// One server, and one pool of connections to it.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Client {
    client: forkyard::Client,
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (url=None, api_key=None, timeout=None))]
    fn new(
        py: Python<'_>,
        url: Option<String>,
        api_key: Option<String>,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let mut builder = forkyard::Client::builder();
        if let Some(url) = url {
            builder = builder.url(url);
        }
        if let Some(api_key) = api_key {
            builder = builder.api_key(api_key);
        }
        if let Some(timeout) = timeout {
            builder = builder.timeout(seconds(py, "timeout", timeout)?);
        }
        // Reads a file at the most.
        let client = builder.build().map_err(|error| to_py_err(py, error))?;
        Ok(Self { client })
    }

    /// Makes a machine; `request` is the wire's JSON.
    fn create(&self, py: Python<'_>, request: &str) -> PyResult<Call> {
        let request = serde_json::from_str(request).map_err(|error| invalid(py, error.to_string()))?;
        let client = self.client.clone();
        Ok(Call::new(
            async move { client.create(request).await.map(|sandbox| Object(Sandbox::new(sandbox))) },
        ))
    }

    fn connect(&self, id_or_name: String) -> Call {
        let client = self.client.clone();
        Call::new(
            async move { client.connect(&id_or_name).await.map(|sandbox| Object(Sandbox::new(sandbox))) },
        )
    }

    fn get(&self, sandbox_id: String) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.get(&sandbox_id).await?) })
    }

    /// The machine of this name, or a new one; `request` is the wire's JSON.
    fn get_or_create(&self, py: Python<'_>, name: String, request: &str) -> PyResult<Call> {
        let request = serde_json::from_str(request).map_err(|error| invalid(py, error.to_string()))?;
        let client = self.client.clone();
        Ok(Call::new(async move {
            client.get_or_create(&name, request).await.map(|sandbox| Object(Sandbox::new(sandbox)))
        }))
    }

    /// All machines that fit; `request` is the core's filter as JSON.
    fn list(&self, py: Python<'_>, request: &str) -> PyResult<Call> {
        let listing = self.listed(py, request)?;
        Ok(Call::new(async move { Json::new(&listing.all().await?) }))
    }

    /// The same, fetched page by page.
    fn listing(&self, py: Python<'_>, request: &str) -> PyResult<Listing> {
        self.listed(py, request).map(Listing::new)
    }

    fn terminate(&self, sandbox_id: String) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.terminate(&sandbox_id).await?) })
    }

    fn snapshot(&self, snapshot_id: String) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.snapshot(&snapshot_id).await?) })
    }

    fn snapshots(&self) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.snapshots().await?) })
    }

    fn delete_snapshot(&self, snapshot_id: String) -> Call {
        let client = self.client.clone();
        Call::new(async move { client.delete_snapshot(&snapshot_id).await.map(|()| Nothing) })
    }

    fn retention(&self) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.retention().await?) })
    }

    /// Has the project keep others of its snapshots; `policy` is the wire's JSON.
    fn set_retention(&self, py: Python<'_>, policy: &str) -> PyResult<Call> {
        let policy = serde_json::from_str(policy).map_err(|error| invalid(py, error.to_string()))?;
        let client = self.client.clone();
        Ok(Call::new(async move { Json::new(&client.set_retention(&policy).await?) }))
    }

    /// Has machines kept ready; `spec` is the wire's JSON.
    fn create_pool(&self, py: Python<'_>, spec: &str) -> PyResult<Call> {
        let spec = serde_json::from_str(spec).map_err(|error| invalid(py, error.to_string()))?;
        let client = self.client.clone();
        Ok(Call::new(async move { Json::new(&client.create_pool(spec).await?) }))
    }

    fn pool(&self, pool_id: String) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.pool(&pool_id).await?) })
    }

    fn pools(&self) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.pools().await?) })
    }

    /// Has a pool keep something else; `spec` is the wire's JSON.
    fn change_pool(&self, py: Python<'_>, pool_id: String, spec: &str) -> PyResult<Call> {
        let spec = serde_json::from_str(spec).map_err(|error| invalid(py, error.to_string()))?;
        let client = self.client.clone();
        Ok(Call::new(async move { Json::new(&client.change_pool(&pool_id, spec).await?) }))
    }

    fn delete_pool(&self, pool_id: String) -> Call {
        let client = self.client.clone();
        Call::new(async move { client.delete_pool(&pool_id).await.map(|()| Nothing) })
    }

    fn images(&self) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.images().await?) })
    }

    fn server_info(&self) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.server_info().await?) })
    }

    fn create_key(&self, py: Python<'_>, request: &str) -> PyResult<Call> {
        let request = serde_json::from_str(request).map_err(|error| invalid(py, error.to_string()))?;
        let client = self.client.clone();
        Ok(Call::new(async move { Json::new(&client.create_key(&request).await?) }))
    }

    fn list_keys(&self) -> Call {
        let client = self.client.clone();
        Call::new(async move { Json::new(&client.list_keys().await?) })
    }

    fn revoke_key(&self, py: Python<'_>, key_id: &str) -> PyResult<Call> {
        let key_id = key_id.parse().map_err(|error: forkyard::InvalidId| invalid(py, error.to_string()))?;
        let client = self.client.clone();
        Ok(Call::new(async move { client.revoke_key(&key_id).await.map(|()| Nothing) }))
    }
}

impl Client {
    fn listed(&self, py: Python<'_>, request: &str) -> PyResult<SandboxListing> {
        let filter: SandboxFilter =
            serde_json::from_str(request).map_err(|error| invalid(py, error.to_string()))?;
        self.client.sandboxes(&filter).map_err(|error| to_py_err(py, error))
    }
}

/// A length of time that a caller gave.
pub fn seconds(py: Python<'_>, name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| invalid(py, format!("{name} must be a number of seconds above 0, not {value}")))
}

/// How long to wait, where not to wait is allowed too.
pub fn wait_secs(py: Python<'_>, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| invalid(py, format!("wait must be a number of seconds of 0 or more, not {value}")))
}
