use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where processes have their cgroups.
const ROOT: &str = "/sys/fs/cgroup/forkyard";

/// Processes that a guest may have at once: enough for any build, and few enough that a fork bomb is over in a second.
const MAX_PIDS: u64 = 4096;

/// Memory that stays out of processes' reach, in bytes: the agent and the kernel's own needs.
const RESERVE: u64 = 40 * 1024 * 1024;

/// Empty cgroups that are kept for the next processes: making one takes an emulated guest as long as starting a process.
const MAX_SPARE: usize = 64;

/// How processes are held: each in a cgroup of its own where the system is the agent's, else in process groups alone.
#[derive(Debug)]
pub struct Limits {
    root: Option<PathBuf>,
    spare: Mutex<Vec<Cgroup>>,
    made: AtomicU64,
}

/// One process's cgroup. It may have held others before.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
    /// Processes that the kernel had killed in it for want of memory before this one came.
    oom_kills_before: u64,
}

impl Limits {
    /// No cgroups: a host of somebody else's.
    pub fn none() -> Self {
        Self { root: None, spare: Mutex::default(), made: AtomicU64::new(0) }
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
        Ok(Self { root: Some(root), ..Self::none() })
    }

    /// An empty cgroup for one process, if there are cgroups.
    pub fn take(&self) -> io::Result<Option<Cgroup>> {
        let Some(root) = &self.root else { return Ok(None) };
        if let Some(spare) = self.lock().pop() {
            return Ok(Some(spare));
        }
        let dir = root.join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&dir)?;
        Ok(Some(Cgroup { dir, oom_kills_before: 0 }))
    }

    /// Takes a cgroup back once nothing is left in it; `false` where something still is.
    pub fn give_back(&self, cgroup: &Cgroup) -> bool {
        if !cgroup.is_empty() {
            return false;
        }
        let mut spare = self.lock();
        if spare.len() < MAX_SPARE {
            spare.push(Cgroup { dir: cgroup.dir.clone(), oom_kills_before: cgroup.oom_kills() });
            return true;
        }
        drop(spare);
        std::fs::remove_dir(&cgroup.dir).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Cgroup>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether the kernel killed something of this process's for want of memory.
    pub fn was_out_of_memory(&self) -> bool {
        self.oom_kills() > self.oom_kills_before
    }

    fn oom_kills(&self) -> u64 {
        oom_kills(&std::fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default())
    }

    fn is_empty(&self) -> bool {
        let events = std::fs::read_to_string(self.dir.join("cgroup.events"));
        events.is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
    }
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
