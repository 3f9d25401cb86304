use forkyard::runtime::run;

use crate::{Answer, Client, value};

/// ImageInfo is an image on the server.
#[derive(Debug, uniffi::Record)]
pub struct ImageInfo {
    /// Digest is sha256: and 64 hexadecimal digits.
    pub digest: String,
    /// Name is its recipe's name.
    pub name: String,
    /// Tags are words that resolve to it, such as python.
    pub tags: Vec<String>,
    /// Size is how many bytes its root file system takes on the host's disk.
    pub size: i64,
}

impl From<forkyard::ImageInfo> for ImageInfo {
    fn from(info: forkyard::ImageInfo) -> Self {
        let forkyard::ImageInfo { digest, name, tags, size_bytes } = info;
        Self { digest, name, tags, size: value::bytes(size_bytes) }
    }
}

/// Capacity is the host's budget.
#[derive(Debug, uniffi::Record)]
pub struct Capacity {
    /// MemoryMB is the memory for machines in all, in MiB.
    pub memory_mb: u64,
    /// MemoryUsedMB is the memory that living machines hold, in MiB, their own overhead on the host included.
    pub memory_used_mb: u64,
    /// Sandboxes is how many machines of all projects are alive.
    pub sandboxes: u64,
}

impl From<forkyard::Capacity> for Capacity {
    fn from(capacity: forkyard::Capacity) -> Self {
        let forkyard::Capacity { memory_mb, memory_used_mb, sandboxes } = capacity;
        Self { memory_mb, memory_used_mb, sandboxes }
    }
}

/// ServerInfo is the server.
#[derive(Debug, uniffi::Record)]
pub struct ServerInfo {
    /// Version is its version.
    pub version: String,
    /// Accelerator is kvm, or tcg where machines run in software.
    pub accelerator: String,
    /// QEMU is QEMU's version.
    pub qemu: String,
    /// Capacity is what the host has room for.
    pub capacity: Capacity,
}

impl From<forkyard::ServerInfo> for ServerInfo {
    fn from(info: forkyard::ServerInfo) -> Self {
        let forkyard::ServerInfo { version, accelerator, qemu, capacity } = info;
        Self { version, accelerator, qemu, capacity: capacity.into() }
    }
}

#[uniffi::export]
impl Client {
    /// Images answers the server's images.
    pub async fn images(&self) -> Answer<Vec<ImageInfo>> {
        let client = self.client.clone();
        Ok(run(async move { client.images().await }).await?.into_iter().map(Into::into).collect())
    }

    /// ServerInfo answers the server's version, accelerator and room.
    pub async fn server_info(&self) -> Answer<ServerInfo> {
        let client = self.client.clone();
        Ok(run(async move { client.server_info().await }).await?.into())
    }
}
