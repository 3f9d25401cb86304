use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where processes have their cgroups.
const ROOT: &str = "/sys/fs/cgroup/forkyard";

/// Processes that a guest may have at once: enough for any build, and few enough that a fork bomb is over in a second.
const MAX_PIDS: u64 = 4096;

/// Memory that stays out of processes' reach, in bytes: the agent and the kernel's own needs.
const RESERVE: u64 = 40 * 1024 * 1024;

/// How processes are held: each in a cgroup of its own where the system is the agent's, else in process groups alone.
#[derive(Debug, Clone)]
pub struct Limits {
    root: Option<PathBuf>,
}

/// One process's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
}

impl Limits {
    /// No cgroups: a host of somebody else's.
    pub fn none() -> Self {
        Self { root: None }
    }

    /// Sets up the cgroup of all processes, with its limits.
    pub fn set_up() -> io::Result<Self> {
        let root = PathBuf::from(ROOT);
        std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids")?;
        std::fs::create_dir_all(&root)?;
        std::fs::write(root.join("cgroup.subtree_control"), "+memory +pids")?;
        std::fs::write(root.join("pids.max"), MAX_PIDS.to_string())?;
        let total = rustix::system::sysinfo().totalram;
        std::fs::write(root.join("memory.max"), total.saturating_sub(RESERVE).to_string())?;
        Ok(Self { root: Some(root) })
    }

    /// A cgroup for one process, if there are cgroups.
    pub fn make(&self, name: &str) -> io::Result<Option<Cgroup>> {
        let Some(root) = &self.root else { return Ok(None) };
        let dir = root.join(name);
        std::fs::create_dir(&dir)?;
        Ok(Some(Cgroup { dir }))
    }
}

impl Cgroup {
    /// The file by which a process enters.
    pub fn entrance(&self) -> io::Result<File> {
        File::options().write(true).open(self.dir.join("cgroup.procs"))
    }

    /// Kills everything in it, whatever session or group it is in.
    pub fn kill(&self) -> io::Result<()> {
        std::fs::write(self.dir.join("cgroup.kill"), "1")
    }

    /// Whether the kernel killed something in it for want of memory.
    pub fn was_out_of_memory(&self) -> bool {
        let events = std::fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        oom_kills(&events) > 0
    }

    /// Removes it, if nothing is left in it.
    pub fn remove(&self) -> bool {
        remove(&self.dir)
    }
}

fn remove(dir: &Path) -> bool {
    std::fs::remove_dir(dir).is_ok()
}

fn oom_kills(events: &str) -> u64 {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_kills_are_counted() {
        assert_eq!(oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(oom_kills(""), 0);
    }
}
