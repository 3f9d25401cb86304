use std::time::SystemTime;

use forkyard::runtime::run;
use forkyard::{CreateKey, KeyScope as Scope};

use crate::{Answer, Client, Error, value};

/// KeyScope is what an API key may do.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum KeyScope {
    /// Make, use and end machines of its project.
    Sandboxes,
    /// Also make, list and revoke keys, of any project.
    Admin,
}

impl From<KeyScope> for Scope {
    fn from(scope: KeyScope) -> Self {
        match scope {
            KeyScope::Sandboxes => Self::Sandboxes,
            KeyScope::Admin => Self::Admin,
        }
    }
}

impl From<Scope> for KeyScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Sandboxes => Self::Sandboxes,
            Scope::Admin => Self::Admin,
        }
    }
}

/// KeyOptions says what API key to make. Zero values stand for defaults.
#[derive(Debug, uniffi::Record)]
pub struct KeyOptions {
    /// Project is the project it sees, prj_…. Default: the caller's.
    pub project: String,
    /// Scope is what it may do. Default: [KeyScopeSandboxes].
    pub scope: KeyScope,
    /// Description says what it is for, in at most 128 bytes.
    pub description: String,
    /// MaxSandboxes is how many machines it may have alive at once. Default: 8.
    pub max_sandboxes: i32,
    /// RequestsPerSecond is how many requests a second it may make on average. Default: 1,000.
    pub requests_per_second: i32,
}

impl TryFrom<KeyOptions> for CreateKey {
    type Error = Error;

    fn try_from(options: KeyOptions) -> Answer<Self> {
        let KeyOptions { project, scope, description, max_sandboxes, requests_per_second } = options;
        let defaults = Self::default();
        let rate = value::count("RequestsPerSecond", requests_per_second)?;
        Ok(Self {
            project: value::id(&project)?,
            scope: scope.into(),
            description,
            max_sandboxes: value::count("MaxSandboxes", max_sandboxes)?.unwrap_or(defaults.max_sandboxes),
            requests_per_second: rate.unwrap_or(defaults.requests_per_second),
        })
    }
}

/// KeyInfo is an API key without its secret.
#[derive(Debug, uniffi::Record)]
pub struct KeyInfo {
    /// KeyID is its public half, key_….
    pub key_id: String,
    /// Project is the project it sees.
    pub project: String,
    /// Scope is what it may do.
    pub scope: KeyScope,
    /// Description says what it is for.
    pub description: String,
    /// MaxSandboxes is how many machines it may have alive at once.
    pub max_sandboxes: u32,
    /// RequestsPerSecond is how many requests a second it may make on average.
    pub requests_per_second: u32,
    /// CreatedAt is when it was made.
    pub created_at: SystemTime,
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
            key_id: key_id.to_string(),
            project: project.to_string(),
            scope: scope.into(),
            description,
            max_sandboxes,
            requests_per_second,
            created_at: value::time(created_at_ms),
        }
    }
}

/// CreatedKey is a new API key with its secret, which is shown this once. Printed, it keeps it to itself.
#[derive(uniffi::Record)]
pub struct CreatedKey {
    /// APIKey is the whole key, as [ClientOptions] takes it.
    pub api_key: String,
    /// Info is all but the secret.
    pub info: KeyInfo,
}

impl From<forkyard::CreatedKey> for CreatedKey {
    fn from(key: forkyard::CreatedKey) -> Self {
        let forkyard::CreatedKey { api_key, info } = key;
        Self { api_key, info: info.into() }
    }
}

#[uniffi::export]
impl Client {
    /// CreateKey makes an API key. It needs a key of scope admin, and is not tried again after a failed connection: a second key
    /// would come of it.
    pub async fn create_key(&self, options: KeyOptions) -> Answer<CreatedKey> {
        let (client, request) = (self.client.clone(), CreateKey::try_from(options)?);
        Ok(run(async move { client.create_key(&request).await }).await?.into())
    }

    /// Keys answers the server's API keys without their secrets. It needs a key of scope admin.
    pub async fn keys(&self) -> Answer<Vec<KeyInfo>> {
        let client = self.client.clone();
        Ok(run(async move { client.list_keys().await }).await?.into_iter().map(Into::into).collect())
    }

    /// RevokeKey revokes an API key at once; machines made with it go on. It needs a key of scope admin.
    pub async fn revoke_key(&self, key_id: String) -> Answer<()> {
        let (client, key_id) = (self.client.clone(), key_id.parse()?);
        run(async move { client.revoke_key(&key_id).await }).await.map_err(Error::from)
    }
}
