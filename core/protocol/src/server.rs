use serde::{Deserialize, Serialize};

/// What `GET /healthz` answers, without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Health {
    /// `ok`, or `stopping` while the server shuts down.
    pub status: String,
}

/// What `GET /v1/server` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServerInfo {
    /// The server's version.
    pub version: String,
    /// `kvm`, or `tcg` where machines run in software.
    pub accelerator: String,
    /// QEMU's version.
    pub qemu: String,
    /// What the host has room for.
    pub capacity: Capacity,
}

/// The host's budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Capacity {
    /// Memory for machines in all, in MiB.
    pub memory_mb: u64,
    /// Memory that living machines hold, in MiB, their own overhead on the host included.
    pub memory_used_mb: u64,
    /// Living machines of all projects.
    pub sandboxes: u64,
}
