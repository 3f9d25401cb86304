//! Where things lie on this host.

use std::path::PathBuf;

/// Where a server keeps its data unless told otherwise: `/var/lib/forkyard` as root, else `~/.local/share/forkyard`.
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/forkyard");
    }
    // Without a home there is the current folder, which the start-up message names.
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    home.join(".local/share/forkyard")
}
