use forkyard::{CreateKey, Error, InvalidId};
use napi_derive::napi;

use super::mirror;
use crate::value::{invalid, number, whole};

/// What an API key may do: make, use and end machines of its project; or also make, list and revoke keys, of any
/// project.
#[napi(string_enum = "snake_case")]
pub enum KeyScope {
    Sandboxes,
    Admin,
}

mirror!(KeyScope = forkyard::KeyScope { Sandboxes, Admin });

/// An API key, without its secret.
#[napi(object, object_from_js = false)]
pub struct KeyInfo {
    /// Its public half, `key_…`.
    pub key_id: String,
    /// The project it sees.
    pub project: String,
    /// What it may do.
    pub scope: KeyScope,
    /// What it is for.
    pub description: String,
    /// Machines it may have alive at once.
    pub max_sandboxes: u32,
    /// Requests a second it may make on average.
    pub requests_per_second: u32,
    /// When it was made: milliseconds since 1970.
    pub created_at_ms: f64,
}

impl From<forkyard::KeyInfo> for KeyInfo {
    fn from(info: forkyard::KeyInfo) -> Self {
        let forkyard::KeyInfo {
            key_id,
            project,
            scope,
            description,
            max_sandboxes,
            requests_per_second,
            created_at_ms,
        } = info;
        Self {
            key_id: key_id.into(),
            project: project.into(),
            scope: scope.into(),
            description,
            max_sandboxes,
            requests_per_second,
            created_at_ms: number(created_at_ms),
        }
    }
}

/// A new API key with its secret, which is shown this once.
#[napi(object, object_from_js = false)]
pub struct CreatedKey {
    /// The whole key, as `Client` takes it.
    pub api_key: String,
    /// All but the secret.
    pub info: KeyInfo,
}

impl From<forkyard::CreatedKey> for CreatedKey {
    fn from(key: forkyard::CreatedKey) -> Self {
        let forkyard::CreatedKey { api_key, info } = key;
        Self { api_key, info: info.into() }
    }
}

/// What an API key is to be.
#[napi(object, object_to_js = false)]
pub struct KeyRequest {
    /// The project it sees. Default: the caller's.
    pub project: Option<String>,
    /// What it may do. Default: `sandboxes`.
    pub scope: Option<KeyScope>,
    /// What it is for, at most 128 bytes.
    pub description: Option<String>,
    /// Machines it may have alive at once. Default: 8.
    pub max_sandboxes: Option<f64>,
    /// Requests a second it may make on average. Default: 1,000.
    pub requests_per_second: Option<f64>,
}

impl TryFrom<KeyRequest> for CreateKey {
    type Error = Error;

    fn try_from(request: KeyRequest) -> Result<Self, Error> {
        let KeyRequest { project, scope, description, max_sandboxes, requests_per_second } = request;
        let default = Self::default();
        let project = project.map(TryInto::try_into).transpose();
        Ok(Self {
            project: project.map_err(|error: InvalidId| invalid(error.to_string()))?,
            scope: scope.map_or(default.scope, Into::into),
            description: description.unwrap_or_default(),
            max_sandboxes: max_sandboxes
                .map_or(Ok(default.max_sandboxes), |value| whole("maxSandboxes", value))?,
            requests_per_second: requests_per_second
                .map_or(Ok(default.requests_per_second), |value| whole("requestsPerSecond", value))?,
        })
    }
}
