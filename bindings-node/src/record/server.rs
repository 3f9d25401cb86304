use napi_derive::napi;

use crate::value::number;

/// An image on the server.
#[napi(object, object_from_js = false)]
pub struct ImageInfo {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Its recipe's name.
    pub name: String,
    /// Words that resolve to it, such as `python`.
    pub tags: Vec<String>,
    /// Bytes that its root file system takes on the host's disk.
    pub size: f64,
}

impl From<forkyard::ImageInfo> for ImageInfo {
    fn from(info: forkyard::ImageInfo) -> Self {
        let forkyard::ImageInfo { digest, name, tags, size_bytes } = info;
        Self { digest, name, tags, size: number(size_bytes) }
    }
}

/// The host's budget.
#[napi(object, object_from_js = false)]
pub struct Capacity {
    /// Memory for machines in all, in MiB.
    pub memory_mb: f64,
    /// Memory that living machines hold, in MiB, their own overhead on the host included.
    pub memory_used_mb: f64,
    /// Living machines of all projects.
    pub sandboxes: f64,
}

impl From<forkyard::Capacity> for Capacity {
    fn from(capacity: forkyard::Capacity) -> Self {
        let forkyard::Capacity { memory_mb, memory_used_mb, sandboxes } = capacity;
        Self {
            memory_mb: number(memory_mb),
            memory_used_mb: number(memory_used_mb),
            sandboxes: number(sandboxes),
        }
    }
}

/// The server.
#[napi(object, object_from_js = false)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// `kvm`, or `tcg` where machines run in software.
    pub accelerator: String,
    /// QEMU's version.
    pub qemu: String,
    /// What the host has room for.
    pub capacity: Capacity,
}

impl From<forkyard::ServerInfo> for ServerInfo {
    fn from(info: forkyard::ServerInfo) -> Self {
        let forkyard::ServerInfo { version, accelerator, qemu, capacity } = info;
        Self { version, accelerator, qemu, capacity: capacity.into() }
    }
}
