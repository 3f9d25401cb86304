use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sparse;
use crate::vmm::FrozenMemory;

/// Files that are the image's own: checked by whoever builds it, and shared by all.
const OF_IMAGE: [&str; 3] = ["base.raw", "vmlinux", "initrd"];

/// A frozen machine's files, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Each file with its length in bytes and, if it is not the image's, its digest (see [`sparse::digest`]).
    pub files: BTreeMap<String, (u64, Option<String>)>,
    /// Layers of the disk.
    pub layers: usize,
    /// Bytes on disk, the image's files not counted.
    pub size_bytes: u64,
    /// Bytes of the disk and of the memory.
    pub logical_size_bytes: u64,
}

impl Contents {
    /// Looks at a folder and reads its files. Blocks.
    fn read(dir: &Path) -> io::Result<Self> {
        let mut contents = Self::default();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = File::open(entry.path())?;
            let metadata = file.metadata()?;
            let of_image = OF_IMAGE.contains(&name.as_str());
            if !of_image {
                file.sync_all()?;
                contents.size_bytes += metadata.blocks() * 512;
            }
            contents.layers += usize::from(name.starts_with("layer-"));
            if name == "base.raw" || name == "ram" {
                contents.logical_size_bytes += metadata.len();
            }
            let digest = if of_image { None } else { Some(sparse::digest(&file)?) };
            contents.files.insert(name, (metadata.len(), digest));
        }
        Ok(contents)
    }

    /// Looks at a folder without reading its files. Blocks.
    pub fn list(dir: &Path) -> io::Result<Self> {
        let mut contents = Self::default();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            contents.layers += usize::from(name.starts_with("layer-"));
            contents.files.insert(name, (entry.metadata()?.len(), None));
        }
        Ok(contents)
    }

    /// Compares a folder's files with what was written; the error says what differs. Of files that are `known` to be whole
    /// the lengths are compared alone: reading a gigabyte for every fork would cost more than the fork. So what is promised is that
    /// damage done while no server ran is found, and a file that was cut short always. A byte that the disk turns under a running
    /// server is found after its next start; machines made meanwhile have it. Blocks.
    pub fn check(&self, dir: &Path, known: bool) -> Result<(), String> {
        self.check_sizes(dir)?;
        if known {
            return Ok(());
        }
        for (name, (_, digest)) in &self.files {
            let Some(digest) = digest else { continue };
            let found = File::open(dir.join(name)).and_then(|file| sparse::digest(&file));
            if found.map_err(|error| format!("{name}: {error}"))? != *digest {
                return Err(format!("the contents of {name} have changed"));
            }
        }
        Ok(())
    }

    /// Compares lengths alone. Blocks.
    fn check_sizes(&self, dir: &Path) -> Result<(), String> {
        for (name, (length, _)) in &self.files {
            let found = std::fs::metadata(dir.join(name)).map_err(|error| format!("{name}: {error}"))?;
            if found.len() != *length {
                return Err(format!("{name} is {} bytes long instead of {length}", found.len()));
            }
        }
        Ok(())
    }

    /// The disk's layers, the lowest first.
    pub fn layers(&self, dir: &Path) -> Vec<PathBuf> {
        (0..self.layers).map(|layer| dir.join(format!("layer-{layer}.qcow2"))).collect()
    }

    /// The memory, if it is held.
    pub fn memory(&self, dir: &Path) -> Option<FrozenMemory> {
        let file = |name: &str| self.files.contains_key(name).then(|| dir.join(name));
        Some(FrozenMemory { ram: file("ram")?, changed: file("changed"), state: dir.join("state") })
    }
}

/// A folder that a machine is frozen into. Deleted with this value, unless it was published.
#[derive(Debug)]
pub struct Folder {
    path: Option<PathBuf>,
}

impl Folder {
    /// Makes a folder below `dir`, under a name that marks it as not finished. One that an earlier server left unfinished
    /// gives way. Blocks.
    pub fn make(dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(format!(".{name}"));
        delete(&path)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path: Some(path) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or_else(|| Path::new(""))
    }

    /// Syncs its files and reads what is in it. Blocks.
    pub fn seal(&self) -> io::Result<Contents> {
        Contents::read(self.path())
    }

    /// Syncs its files, without reading them. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(self.path())? {
            File::open(entry?.path())?.sync_all()?;
        }
        Ok(())
    }

    /// Moves it to its place, for good. Blocks.
    pub fn publish(mut self, target: &Path) -> io::Result<()> {
        let path = self.path();
        File::open(path)?.sync_all()?;
        std::fs::rename(path, target)?;
        self.path = None;
        let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
        File::open(parent)?.sync_all()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Some(path) = self.path.take() else { return };
        let work = move || {
            if let Err(error) = delete(&path) {
                tracing::error!(path = %path.display(), %error, "a frozen machine's files could not be deleted");
            }
        };
        // Giving back the space of a gigabyte takes its time: not on the event loop. What a server that ends no longer comes
        // to is deleted at the next start.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => work(),
        }
    }
}

/// Deletes a snapshot's folder. Blocks.
pub fn delete(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Deletes what lies in a folder of frozen machines, finished or not, whose names start with `prefix`, and is none of these.
/// Blocks.
pub(crate) fn delete_others(dir: &Path, prefix: &str, keep: &HashSet<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What is not named as ours is not ours to delete.
        if name.trim_start_matches('.').starts_with(prefix) && !keep.contains(&name) {
            delete(&entry.path())?;
        }
    }
    Ok(())
}
