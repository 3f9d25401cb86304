use serde::{Deserialize, Serialize};

use crate::{KeyId, ProjectId};

/// What a key may do. `admin` includes `sandboxes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Scope {
    /// Make, use and end machines of its project.
    Sandboxes,
    /// Also make, list and revoke keys, of any project.
    Admin,
}

/// Asks for a key: `POST /v1/keys` (scope `admin`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreateKey {
    /// The project it sees. Default: the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// What it may do. Default: `sandboxes`.
    #[serde(default = "default_scope")]
    pub scope: Scope,
    /// What it is for, for people: at most 128 characters.
    #[serde(default)]
    pub description: String,
    /// Machines it may have alive at once. Default: 8.
    #[serde(default = "default_max_sandboxes")]
    pub max_sandboxes: u32,
    /// Requests a second it may make on average, with bursts of ten seconds' worth. Default: 1,000.
    #[serde(default = "default_requests_per_second")]
    pub requests_per_second: u32,
}

fn default_scope() -> Scope {
    Scope::Sandboxes
}
fn default_max_sandboxes() -> u32 {
    8
}
fn default_requests_per_second() -> u32 {
    1000
}

impl Default for CreateKey {
    fn default() -> Self {
        Self {
            project: None,
            scope: default_scope(),
            description: String::new(),
            max_sandboxes: default_max_sandboxes(),
            requests_per_second: default_requests_per_second(),
        }
    }
}

/// A key as the API shows it; never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyInfo {
    /// Its public half.
    pub key_id: KeyId,
    /// The project it sees.
    pub project: ProjectId,
    /// What it may do.
    pub scope: Scope,
    /// What it is for.
    pub description: String,
    /// Machines it may have alive at once.
    pub max_sandboxes: u32,
    /// Requests a second it may make on average.
    pub requests_per_second: u32,
    /// When it was made: milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A new key with its secret, which is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CreatedKey {
    /// The whole key, `fy_…`, as clients send it in `Authorization: Bearer`.
    pub api_key: String,
    /// All but the secret.
    pub info: KeyInfo,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedKey").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The keys of this server, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyList {
    /// The keys.
    pub keys: Vec<KeyInfo>,
}
