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
