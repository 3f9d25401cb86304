use std::path::Path;

use rustix::process::{Resource, getrlimit};
use tokio::process::Command;

use super::Facts;
use crate::image::ImageStore;
use crate::vmm::qemu::{Qemu, Version};
use crate::vmm::{Accelerator, Limits, Vmm as _, probe};

/// Programs that building an image takes, each with the package that has it on Debian.
const TOOLS: [(&str, &str); 8] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("depmod", "kmod"),
    ("dpkg-deb", "dpkg"),
    ("apt-get", "apt"),
    ("timeout", "coreutils"),
];

/// Looks at this host. `data_dir` need not be there.
pub async fn gather(data_dir: &Path, images: &ImageStore, helper: Command) -> Facts {
    let qemu = Version::installed().await;
    let verdict = probe::verdict(data_dir, helper, None).await;
    let limits = match Qemu::find(Accelerator::Tcg).await.map(|qemu| qemu.limits()) {
        Ok(Limits::Enforced) => None,
        Ok(Limits::Absent(reason)) => Some(reason),
        Err(error) => Some(error.to_string()),
    };
    let (images, data_dir) = (images.clone(), data_dir.to_owned());
    let looked = tokio::task::spawn_blocking(move || Facts {
        qemu: Some(qemu.map_err(|error| error.to_string())),
        kvm: (verdict.accelerator() == Accelerator::Kvm, verdict.to_string()),
        limits,
        missing_tools: TOOLS.into_iter().filter(|(program, _)| !is_installed(program)).collect(),
        disk_mb: free_disk_mb(&data_dir),
        memory_mb: crate::host::available_memory_mb().unwrap_or(0),
        open_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        is_root: rustix::process::geteuid().is_root(),
        images: images.list().unwrap_or_default().into_iter().flat_map(|image| image.tags).collect(),
    });
    looked.await.unwrap_or_default()
}

/// Also where root's programs are, which an ordinary user's `PATH` leaves out.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.into_iter().any(|dir| dir.join(program).is_file())
}

/// Free space where the directory is, or will be.
fn free_disk_mb(dir: &Path) -> u64 {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    crate::host::free_disk_mb(existing).unwrap_or(0)
}
