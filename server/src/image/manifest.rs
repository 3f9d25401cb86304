use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::vmm::Devices;

/// What an image is made of. Its digest is the SHA-256 of this document's JSON, so it covers everything named here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The recipe's name.
    pub name: String,
    /// SHA-256 of the recipe and of those that it builds on.
    pub recipe: String,
    /// Every package of the root file system with its version.
    pub packages: BTreeMap<String, String>,
    /// The root file system's digest: the stem of its file below `rootfs/`.
    pub rootfs: String,
    /// The digest of kernel and initial RAM disk: the name of their folder below `boot/`.
    pub boot: String,
    /// The kernel's package and version.
    pub kernel: String,
    /// SHA-256 of the agent.
    pub agent: String,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// Default account of processes.
    pub user: String,
    /// Default folder of processes.
    pub cwd: String,
    /// Commands that a template runs before it is frozen. Left out where there are none, as in images of earlier versions,
    /// whose digests must go on to fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warm: Vec<Vec<String>>,
    /// The devices that its kernel and agent know. Left out where they are the first, as in images of earlier versions.
    #[serde(default, skip_serializing_if = "Devices::are_first")]
    pub devices: Devices,
    /// Least memory that a machine of it needs, in MiB.
    pub min_memory_mb: u64,
}

impl Manifest {
    /// The document as it is hashed and kept: fields in their order, maps sorted.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }

    /// The digest in 64 hexadecimal digits.
    pub fn digest(&self) -> serde_json::Result<String> {
        Ok(hex(&Sha256::digest(self.to_json()?)))
    }
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
