//! Kernel and initial RAM disk: Debian's kernel, unpacked as QEMU starts it fastest, and the agent as its first program.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::ImageError;
use super::command::{decompress, run};
use super::cpio::Archive;

/// The package that depends on the current kernel. Its predecessor in Debian 12 (6.1) lacks vmgenid.
const KERNEL: &str = "linux-image-6.12-cloud-amd64";

/// Drivers that the agent loads before it mounts the disk; the rest of what a guest needs is built in. `tcp_diag` is what resets
/// connections whose other end is gone.
const MODULES: [&str; 4] = ["virtio_blk", "virtio-rng", "virtio_net", "tcp_diag"];

/// What a machine is started with.
pub struct Boot {
    /// The kernel's package and version.
    pub kernel: String,
    /// The kernel, uncompressed.
    pub vmlinux: Vec<u8>,
    /// Modules with their dependencies, in the order in which they load.
    pub modules: Vec<(String, Vec<u8>)>,
}

/// Fetches the kernel's package through apt and takes it apart. `scratch` is a folder of the caller's.
pub fn fetch(scratch: &Path) -> Result<Boot, ImageError> {
    let depends = run("apt-cache", |command| {
        command.args(["depends", "--important", KERNEL]);
    })?;
    let depends = String::from_utf8_lossy(&depends).into_owned();
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-")).ok_or_else(|| {
        ImageError::Build(format!(
            "apt does not know {KERNEL}: on Debian 12, with its security archive among the sources, run 'apt-get update'"
        ))
    })?;
    let package = format!("linux-image-{package}");
    run("apt-get", |command| {
        command.args(["download", "-q", &package]).current_dir(scratch);
    })?;
    let archive = only_file(scratch, "deb")?;
    let unpacked = scratch.join("kernel");
    run("dpkg-deb", |command| {
        command.arg("-x").arg(&archive).arg(&unpacked);
    })?;
    let version = run("dpkg-deb", |command| {
        command.args(["--show", "--showformat=${Version}"]).arg(&archive);
    })?;
    let release = package.trim_start_matches("linux-image-");
    let bz_image = std::fs::read(unpacked.join(format!("boot/vmlinuz-{release}")))?;
    let (program, compressed) = payload_of(&bz_image)?;
    let payload = scratch.join("payload");
    std::fs::write(&payload, compressed)?;
    // Debian unpacks below /lib or, since the merge of the two, below /usr/lib.
    let lib = [unpacked.join("lib/modules"), unpacked.join("usr/lib/modules")];
    let lib = lib
        .into_iter()
        .find(|dir| dir.is_dir())
        .ok_or_else(|| ImageError::Build(format!("{package} has no modules")))?;
    Ok(Boot {
        kernel: format!("{package} {}", String::from_utf8_lossy(&version)),
        vmlinux: decompress(program, &payload)?,
        modules: modules(&lib.join(release))?,
    })
}

/// The program that decompresses the kernel inside a bzImage, and what it is to decompress
/// (<https://docs.kernel.org/arch/x86/boot.html>: `setup_sects`, `payload_offset`, `payload_length`).
fn payload_of(bz_image: &[u8]) -> Result<(&'static str, &[u8]), ImageError> {
    const PROGRAMS: [(&[u8], &str); 2] = [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];
    let word = |at: usize| Some(u32::from_le_bytes(bz_image.get(at..at + 4)?.try_into().ok()?) as usize);
    let find = || {
        (bz_image.get(0x202..0x206)? == b"HdrS").then_some(())?;
        let setup_sectors = match bz_image.get(0x1f1)? {
            0 => 4,
            sectors => usize::from(*sectors),
        };
        let start = (setup_sectors + 1) * 512 + word(0x248)?;
        // The last four bytes are the kernel's size, not part of what was compressed.
        let payload = bz_image.get(start..(start + word(0x24c)?).checked_sub(4)?)?;
        let (_, program) = PROGRAMS.into_iter().find(|(magic, _)| payload.starts_with(magic))?;
        Some((program, payload))
    };
    find().ok_or_else(|| ImageError::Build("the kernel is no bzImage with an xz or zstd payload".to_owned()))
}

fn modules(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, ImageError> {
    // Made when the package is installed, which it is not here.
    let base = dir.ancestors().nth(3).unwrap_or(dir);
    run("depmod", |command| {
        command.arg("-b").arg(base).arg(dir.file_name().unwrap_or_default());
    })?;
    let text = std::fs::read_to_string(dir.join("modules.dep"))?;
    let mut loaded = Vec::new();
    for path in load_order(&text, &MODULES)? {
        let file = dir.join(&path);
        let is_compressed = file.extension().is_some_and(|extension| extension == "xz");
        let content = if is_compressed { decompress("xz", &file)? } else { std::fs::read(&file)? };
        let name = stem(&path).to_owned();
        loaded.push((name, content));
    }
    Ok(loaded)
}

/// The files of these modules and of what they depend on, each after what it needs.
fn load_order(modules_dep: &str, wanted: &[&str]) -> Result<Vec<String>, ImageError> {
    let lines = modules_dep.lines().filter_map(|line| line.split_once(':'));
    let depends: HashMap<&str, Vec<&str>> =
        lines.map(|(file, on)| (file, on.split_whitespace().collect())).collect();
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let file = depends.keys().find(|file| stem(file) == *name);
        let file = file.ok_or_else(|| ImageError::Build(format!("the kernel has no module {name}")))?;
        // `modules.dep` lists all dependencies, the deepest last.
        for file in depends[file].iter().rev().chain([file]) {
            if !order.iter().any(|known| known == file) {
                order.push((*file).to_owned());
            }
        }
    }
    Ok(order)
}

fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name)
}

/// The initial RAM disk: the agent, the modules, and what the agent needs before it mounts anything.
pub fn initrd(agent: &[u8], modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "sys", "newroot", "modules"] {
        archive.directory(dir);
    }
    archive.character_device("dev/console", 5, 1);
    archive.executable("init", agent);
    for (index, (name, content)) in modules.iter().enumerate() {
        archive.executable(&format!("modules/{index:02}-{name}.ko"), content);
    }
    archive.finish()
}

fn only_file(dir: &Path, extension: &str) -> Result<PathBuf, ImageError> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            return Ok(path);
        }
    }
    Err(ImageError::Build(format!("no .{extension} was downloaded")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_load_after_what_they_need() {
        let dep = "k/a.ko.xz: k/b.ko.xz k/c.ko.xz\nk/b.ko.xz: k/c.ko.xz\nk/c.ko.xz:\nk/d.ko.xz: k/c.ko.xz\n";
        let order = load_order(dep, &["a", "d"]).unwrap();
        assert_eq!(order, ["k/c.ko.xz", "k/b.ko.xz", "k/a.ko.xz", "k/d.ko.xz"]);
        assert!(load_order(dep, &["e"]).is_err());
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(payload_of(b"short").is_err());
        assert!(payload_of(&[0; 4096]).is_err());
    }
}
