use serde::{Deserialize, Serialize};

/// An image on this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImageInfo {
    /// `sha256:` and 64 hexadecimal digits over recipe, packages, kernel and agent.
    pub digest: String,
    /// The recipe's name.
    pub name: String,
    /// Tags that resolve to it, such as `python` and `python:3.11`.
    pub tags: Vec<String>,
    /// Bytes that its root file system takes on the host's disk.
    pub size_bytes: u64,
}

/// The images of this server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImageList {
    /// The images, by name.
    pub images: Vec<ImageInfo>,
}
