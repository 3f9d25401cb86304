//! Finds QEMU processes by what they are, not by what a file says they were.

use std::path::{Path, PathBuf};

use forkyard_protocol::SandboxId;
use rustix::process::Pid;

use super::version::PROGRAM;

/// A running QEMU whose working directory is a machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The process.
    pub pid: Pid,
    /// The machine, by its directory's name.
    pub sandbox_id: SandboxId,
}

/// All QEMU processes whose working directory is an immediate child of `machines_dir`.
pub fn machines(machines_dir: &Path) -> std::io::Result<Vec<Found>> {
    let machines_dir = match machines_dir.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|text| text.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // A process may end while it is looked at, and others' are not ours to read: neither is one of our machines.
        let Some(sandbox_id) = machine_of(pid, &machines_dir) else { continue };
        found.push(Found { pid, sandbox_id });
    }
    Ok(found)
}

impl Found {
    /// Whether the process is this machine's still.
    pub fn is_current(&self, machines_dir: &Path) -> bool {
        let machine = machines_dir.canonicalize().ok().and_then(|dir| machine_of(self.pid, &dir));
        machine.as_ref() == Some(&self.sandbox_id)
    }
}

fn machine_of(pid: Pid, machines_dir: &Path) -> Option<SandboxId> {
    let pid = pid.as_raw_nonzero();
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let sandbox_id = id_of_dir(&cwd, machines_dir)?;
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = command_line.split(|byte| *byte == 0).next()?;
    let is_qemu = Path::new(std::str::from_utf8(program).ok()?).file_name()? == PROGRAM;
    is_qemu.then_some(sandbox_id)
}

/// The machine that a working directory belongs to; the kernel marks one that was removed.
fn id_of_dir(cwd: &Path, machines_dir: &Path) -> Option<SandboxId> {
    let text = cwd.to_str()?;
    let cwd = PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text));
    if cwd.parent()? != machines_dir {
        return None;
    }
    SandboxId::parse(cwd.file_name()?.to_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_machines_of_this_directory_count() {
        let id = |cwd: &str| id_of_dir(Path::new(cwd), Path::new("/data/machines")).map(|id| id.to_string());
        assert_eq!(id("/data/machines/sbx_1").as_deref(), Some("sbx_1"));
        assert_eq!(id("/data/machines/sbx_1 (deleted)").as_deref(), Some("sbx_1"));
        assert_eq!(id("/data/machines"), None);
        assert_eq!(id("/data/machines/other"), None);
        assert_eq!(id("/elsewhere/machines/sbx_1"), None);
        assert_eq!(id("/data/machines/sbx_1/deeper"), None);
    }

    #[test]
    fn this_test_is_no_machine() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(machines(dir.path()).unwrap(), []);
    }
}
