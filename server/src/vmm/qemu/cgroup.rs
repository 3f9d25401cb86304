//! Control groups (version 2): the kernel holds a machine to its memory and processors, whatever its guest or QEMU does.
//!
//! A machine's group is `forkyard/<sandbox id>` below the first group on the way from the hierarchy's root (for root) or
//! from the server's own group (for others) in which this process may give out both controllers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder that holds the machines' groups.
const FOLDER: &str = "forkyard";

/// What gives both controllers to the groups below.
const CONTROLLERS: &str = "+cpu +memory";

/// Microseconds over which processor time is counted, the kernel's default.
const PERIOD_US: u64 = 100_000;

/// Where machines' groups can be made.
#[derive(Debug, Clone)]
pub struct Cgroups {
    folder: PathBuf,
}

impl Cgroups {
    /// Finds a place for groups; the error says, for people, why there is none.
    pub fn find() -> Result<Self, String> {
        let mount = mount_point(&read("/proc/self/mountinfo")?)
            .ok_or("control groups of version 2 are not mounted")?;
        let groups = read("/proc/self/cgroup")?;
        let own = own_group(&groups).ok_or("this process is in no control group")?;
        let own = mount.join(own.trim_start_matches('/'));
        let mut candidates: Vec<&Path> =
            own.ancestors().take_while(|group| group.starts_with(&mount)).collect();
        if rustix::process::geteuid().is_root() {
            // The root is the same whoever starts the server; a session's group ends with the session.
            candidates.reverse();
        }
        Self::first_usable(&candidates)
    }

    fn first_usable(candidates: &[&Path]) -> Result<Self, String> {
        let mut reasons = Vec::new();
        for base in candidates {
            match Self::open(base) {
                Ok(cgroups) => return Ok(cgroups),
                Err(error) => reasons.push(format!("{}: {error}", base.display())),
            }
        }
        Err(format!("no control group can be divided ({})", reasons.join("; ")))
    }

    fn open(base: &Path) -> io::Result<Self> {
        let available = fs::read_to_string(base.join("cgroup.controllers"))?;
        for wanted in ["cpu", "memory"] {
            if !available.split_whitespace().any(|name| name == wanted) {
                return Err(io::Error::other(format!("the controller '{wanted}' is not available")));
            }
        }
        give(base)?;
        let folder = base.join(FOLDER);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => give(&folder)?,
        }
        Ok(Self { folder })
    }

    /// Makes a machine's group; the machine's process has yet to enter it.
    pub fn create(&self, id: &str, memory_mb: u64, vcpus: u32) -> io::Result<Cgroup> {
        let group = Cgroup { path: self.folder.join(id) };
        match fs::create_dir(&group.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let memory = memory_mb.saturating_mul(1 << 20).to_string();
        let cpu = format!("{} {PERIOD_US}", u64::from(vcpus) * PERIOD_US);
        for (file, value) in [("memory.max", memory), ("cpu.max", cpu)] {
            if let Err(error) = fs::write(group.path.join(file), value) {
                group.remove();
                return Err(error);
            }
        }
        Ok(group)
    }

    /// The group that a machine of this id would have, whether there is one or not.
    pub fn of(&self, id: &str) -> Cgroup {
        Cgroup { path: self.folder.join(id) }
    }
}

/// A machine's group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The file through which a process enters by writing `0`.
    pub fn entrance(&self) -> io::Result<fs::File> {
        fs::OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// Removes the group, if it is there; the kernel keeps one that still has processes.
    pub fn remove(&self) {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(group = %self.path.display(), %error, "a control group could not be removed");
            }
            _ => {}
        }
    }
}

fn give(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.subtree_control"), CONTROLLERS)
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// Where the unified hierarchy is mounted (<https://docs.kernel.org/filesystems/proc.html>, 3.5: mount point is field 5,
/// the type follows a dash).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        (kind.split(' ').next()? == "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn own_group(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_among_others() {
        let mountinfo = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            31 30 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
            32 30 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mountinfo), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("31 30 0:27 / /x rw - cgroup cgroup rw\n"), None);
        assert_eq!(own_group("4:memory:/a\n0::/user.slice/x\n"), Some("/user.slice/x"));
    }

    #[test]
    fn a_group_bounds_memory_and_processors() {
        let dir = tempfile::tempdir().unwrap();
        let (poor, rich) = (dir.path().join("poor"), dir.path().join("rich"));
        for (group, controllers) in [(&poor, "pids"), (&rich, "cpu memory pids")] {
            fs::create_dir(group).unwrap();
            fs::write(group.join("cgroup.controllers"), controllers).unwrap();
        }
        let reason = Cgroups::first_usable(&[&poor]).unwrap_err();
        assert!(reason.contains("'cpu' is not available"), "{reason}");
        let cgroups = Cgroups::first_usable(&[&poor, &rich]).unwrap();
        let group = cgroups.create("sbx_1", 624, 2).unwrap();
        let value = |file: &str| fs::read_to_string(group.path.join(file)).unwrap();
        assert_eq!((value("memory.max"), value("cpu.max")), ("654311424".into(), "200000 100000".into()));
        assert_eq!(group, cgroups.of("sbx_1"));
        cgroups.of("sbx_2").remove();
    }

    /// Where the host lets this process divide groups; elsewhere there must be a reason.
    #[test]
    fn the_kernel_takes_what_is_written() {
        let cgroups = match Cgroups::find() {
            Ok(cgroups) => cgroups,
            Err(reason) => return assert!(!reason.is_empty()),
        };
        let group = cgroups.create(&format!("test-{}", std::process::id()), 64, 1).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(group.path.join("cgroup.procs"), child.id().to_string()).unwrap();
        assert_eq!(fs::read_to_string(group.path.join("memory.max")).unwrap().trim(), "67108864");
        assert_eq!(fs::read_to_string(group.path.join("cpu.max")).unwrap().trim(), "100000 100000");
        group.entrance().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        group.remove();
        assert!(!group.path.exists());
    }
}
