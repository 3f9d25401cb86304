//! Templates: an image that was booted once, frozen with its memory before anybody used it, and forked ever after.
//!
//! ```text
//! templates/<key>/     the frozen machine and `contents.json`, what its files must be
//! templates/.<key>/    one that is being written
//! ```
//!
//! The first machine of a kind boots, is frozen on the way, and goes on to its caller: a template costs no machine of its own.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use forkyard_protocol::ErrorBody;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::manager::internal;
use super::origin::Origin;
use crate::image::hex;
use crate::snapshot::{Contents, Folder, Verified, delete, delete_others};
use crate::vmm::{Devices, Freeze, Machine};

/// The list of a template's files with their digests, among them.
const CONTENTS: &str = "contents.json";

/// What the names of templates start with.
const PREFIX: &str = "tpl_";

/// What makes two machines of images alike: they can be forks of one template.
#[derive(Debug, Clone)]
pub struct Kind<'a> {
    /// The image's digest.
    pub image_digest: &'a str,
    /// Whole virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// What runs them.
    pub accelerator: &'a str,
    /// The virtual machine monitor and its version.
    pub vmm: &'a str,
    /// The devices that they have.
    pub devices: Devices,
    /// The digest of what the operator gives them.
    pub given: &'a str,
}

impl Kind<'_> {
    fn key(&self) -> String {
        // Without `..`: a new field breaks the build until it counts.
        let Self { image_digest, vcpus, memory_mb, accelerator, vmm, devices, given } = self;
        let text = format!("{image_digest}\n{vcpus}\n{memory_mb}\n{accelerator}\n{vmm}\n{devices}\n{given}");
        format!("{PREFIX}{}", hex(&Sha256::digest(text)[..16]))
    }
}

/// The templates of this server. They are a cache: one that is lost is made again.
pub struct Templates {
    dir: PathBuf,
    budget_bytes: u64,
    /// By key; who holds one makes or looks at the template.
    verified: Verified<String>,
}

/// What [`Templates::find`] found.
pub enum Found {
    /// A template to fork.
    Template(Box<Origin>),
    /// None; whoever holds this is to make it, and others wait.
    Missing(Making),
}

/// The right to make one template.
pub struct Making {
    key: String,
    verified: OwnedMutexGuard<bool>,
}

impl Templates {
    /// The templates of this folder, which need not be there yet, in at most so many bytes on disk.
    pub fn new(dir: PathBuf, budget_bytes: u64) -> Self {
        Self { dir, budget_bytes, verified: Verified::default() }
    }

    /// Deletes what an earlier server left unfinished, and what cannot be read: neither would ever count against the budget.
    pub async fn clean(&self) -> Result<(), ErrorBody> {
        let dir = self.dir.clone();
        let cleaned = spawn_blocking(move || {
            let entries = std::fs::read_dir(&dir).into_iter().flatten().collect::<io::Result<Vec<_>>>()?;
            let whole = entries.iter().filter(|entry| contents_of(&entry.path()).is_some());
            let names = whole.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let keep = names.filter(|name| !name.starts_with('.')).collect();
            delete_others(&dir, PREFIX, &keep)
        });
        cleaned.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))
    }

    /// The template for machines of this kind; waits where it is just being made.
    pub async fn find(&self, kind: &Kind<'_>, image: &Origin) -> Result<Found, ErrorBody> {
        let key = kind.key();
        let mut verified = self.verified.enter(key.clone()).await;
        let (path, is_verified) = (self.dir.join(&key), *verified);
        let contents =
            spawn_blocking(move || look_at(&path, is_verified)).await.map_err(|error| internal(&error))?;
        let Some(contents) = contents else {
            *verified = false;
            return Ok(Found::Missing(Making { key, verified }));
        };
        *verified = true;
        Ok(Found::Template(Box::new(image.going_on_from(&contents, &self.dir.join(&key)))))
    }

    /// Freezes a machine that has booted and that nobody has used yet. It runs on; its files are read and put in their place
    /// in the background, and whoever wants a machine of this kind waits for that.
    pub async fn make(&self, making: Making, machine: &dyn Machine) -> Result<(), ErrorBody> {
        let (dir, key) = (self.dir.clone(), making.key.clone());
        let folder =
            spawn_blocking(move || Folder::make(&dir, &key)).await.map_err(|error| internal(&error))?;
        let folder = folder.map_err(|error| internal(&error))?;
        machine.freeze(folder.path().to_owned(), Freeze::Memory).await?;
        let (dir, budget_bytes) = (self.dir.clone(), self.budget_bytes);
        spawn_blocking(move || {
            if let Err(error) = making.publish(folder, &dir, budget_bytes) {
                tracing::warn!(%error, "no template was made of a frozen machine");
            }
        });
        Ok(())
    }
}

impl Making {
    /// Puts a frozen machine in its place as a template. Blocks.
    fn publish(mut self, folder: Folder, dir: &Path, budget_bytes: u64) -> io::Result<()> {
        let contents = folder.seal()?;
        std::fs::write(folder.path().join(CONTENTS), serde_json::to_vec(&contents)?)?;
        folder.publish(&dir.join(&self.key))?;
        *self.verified = true;
        evict(dir, &self.key, budget_bytes)
    }
}

/// A template's files, if they are there and whole; one that is not is deleted. Blocks.
fn look_at(path: &Path, is_verified: bool) -> Option<Contents> {
    let contents = contents_of(path)?;
    if let Err(what) = contents.check(path, is_verified) {
        tracing::warn!(path = %path.display(), what, "a damaged template is made anew");
        if let Err(error) = delete(path) {
            tracing::error!(path = %path.display(), %error, "it could not be deleted");
        }
        return None;
    }
    // The time of its last use, for eviction; a template that cannot be marked is only evicted early.
    let now = SystemTime::now();
    drop(File::open(path).and_then(|folder| folder.set_modified(now)));
    Some(contents)
}

/// What a template's files must be; none where it cannot be read, which is no template then.
fn contents_of(path: &Path) -> Option<Contents> {
    serde_json::from_slice(&std::fs::read(path.join(CONTENTS)).ok()?).ok()
}

/// Deletes the templates that were used the longest ago, until all fit the budget; never `keep`. Blocks.
fn evict(dir: &Path, keep: &str, budget_bytes: u64) -> io::Result<()> {
    let mut others = Vec::new();
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(contents) = contents_of(&entry.path()) else { continue };
        total += contents.size_bytes;
        if entry.file_name() != keep {
            others.push((entry.metadata()?.modified()?, contents.size_bytes, entry.path()));
        }
    }
    others.sort();
    for (_, size, path) in others {
        if total <= budget_bytes {
            break;
        }
        tracing::info!(path = %path.display(), "a template that was not used for long gives way");
        delete(&path)?;
        total -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, key: &str, size_bytes: u64, age_secs: u64) {
        let path = dir.join(key);
        std::fs::create_dir_all(&path).unwrap();
        let contents = Contents { size_bytes, ..Contents::default() };
        std::fs::write(path.join(CONTENTS), serde_json::to_vec(&contents).unwrap()).unwrap();
        let used = SystemTime::now() - std::time::Duration::from_secs(age_secs);
        File::open(path).unwrap().set_modified(used).unwrap();
    }

    #[test]
    fn the_one_that_was_used_the_longest_ago_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        for (key, age) in [("a", 10), ("b", 30), ("c", 20), ("new", 0)] {
            write(dir.path(), key, 100, age);
        }
        evict(dir.path(), "new", 250).unwrap();
        let left = |key: &str| dir.path().join(key).exists();
        assert_eq!(["a", "b", "c", "new"].map(left), [true, false, false, true]);
        evict(dir.path(), "new", 0).unwrap();
        assert_eq!(["a", "new"].map(left), [false, true], "what was just made is wanted");
    }

    #[tokio::test]
    async fn what_was_not_finished_is_deleted_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        for key in ["tpl_whole", ".tpl_half", "tpl_unreadable"] {
            write(dir.path(), key, 100, 0);
        }
        std::fs::write(dir.path().join("tpl_unreadable").join(CONTENTS), "{").unwrap();
        Templates::new(dir.path().to_owned(), 1000).clean().await.unwrap();
        let left = |key: &str| dir.path().join(key).exists();
        assert_eq!(["tpl_whole", ".tpl_half", "tpl_unreadable"].map(left), [true, false, false]);
    }

    #[test]
    fn machines_that_differ_have_templates_of_their_own() {
        let kind = Kind {
            image_digest: "sha256:1",
            vcpus: 1,
            memory_mb: 512,
            accelerator: "tcg",
            vmm: "QEMU 7.2",
            devices: Devices::NOW,
            given: "1",
        };
        let others = [
            Kind { vcpus: 2, ..kind.clone() },
            Kind { memory_mb: 256, ..kind.clone() },
            Kind { image_digest: "sha256:2", ..kind.clone() },
            Kind { accelerator: "kvm", ..kind.clone() },
            Kind { vmm: "QEMU 10.0", ..kind.clone() },
            Kind { devices: Devices::default(), ..kind.clone() },
            Kind { given: "2", ..kind.clone() },
        ];
        assert!(others.iter().all(|other| other.key() != kind.key()));
        assert_eq!(kind.key().len(), PREFIX.len() + 32);
    }
}
