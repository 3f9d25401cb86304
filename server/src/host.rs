//! What this host has.

use anyhow::Context as _;

/// Memory that the host could give away now, in MiB.
pub fn available_memory_mb() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib =
        line.and_then(|rest| rest.trim().strip_suffix(" kB")).context("/proc/meminfo lacks MemAvailable")?;
    Ok(kib.parse::<u64>()? / 1024)
}

/// Space that is free to this user on the file system of a path, in MiB. Blocks.
pub fn free_disk_mb(path: &std::path::Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    Ok((space.f_bavail * space.f_frsize) >> 20)
}

/// Whether an error says that no more can be written: the disk is full, or whoever set limits to it allows no more.
pub fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
